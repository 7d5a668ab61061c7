//! What Docker's engine has and shoal does not: refused by its name, so that nobody takes it for a typing error.

use axum::http::Method;

use super::error::ApiError;

/// Method, path (`*` is one or more segments, `?` exactly one), and what people know it by. The first that fits counts.
const NOT_HERE: &[(&str, &str, &str)] = &[
    ("POST", "/swarm/init", "docker swarm init (\"shoal up\" founds a shoal; this node is in one already)"),
    ("POST", "/swarm/join", "docker swarm join (\"shoal up --seed HOST:PORT --token TOKEN\" joins)"),
    ("POST", "/swarm/update", "docker swarm update"),
    ("GET", "/swarm/unlockkey", "docker swarm unlock-key"),
    ("POST", "/swarm/unlock", "docker swarm unlock"),
    ("POST", "/networks/*", "docker network connect and disconnect (docker service update --network-add)"),
    ("GET", "/images/search", "docker search"),
    ("POST", "/images/*", "docker push"),
    ("*", "/containers/?/attach/ws", "attach by websocket (POST /containers/ID/attach takes the connection over)"),
    ("*", "/containers/*", "containers besides those of services (docker run, cp, commit, …)"),
    ("PUT", "/volumes/?", "docker volume update"),
    ("*", "/plugins", "plugins"),
    ("*", "/plugins/*", "plugins"),
    ("POST", "/build", "docker build"),
    ("POST", "/build/*", "docker build"),
    ("POST", "/commit", "docker commit"),
    ("POST", "/session", "docker build with BuildKit"),
    ("POST", "/grpc", "docker build with BuildKit"),
    ("GET", "/system/df", "docker system df"),
];

/// Returns why a request is refused: by name if Docker's engine would answer it, else as `otherwise`.
pub(super) fn refusal(method: &Method, path: &str, otherwise: ApiError) -> ApiError {
    let fits = |(wanted, pattern, _): &&(&str, &str, &str)| {
        let method_fits = *wanted == "*" || *wanted == method.as_str() || (*wanted == "GET" && method == Method::HEAD);
        method_fits && path_fits(pattern, path)
    };
    match NOT_HERE.iter().find(fits) {
        Some((_, _, what)) => ApiError::NotSupported((*what).to_owned()),
        None => otherwise,
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) => return !segment.is_empty(),
            (Some("?"), Some(segment)) if !segment.is_empty() => {}
            (Some(wanted), Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_has_is_refused_by_name_and_the_rest_is_unknown() {
        let text = |method: Method, path| refusal(&method, path, ApiError::NoSuchPath).to_string();
        assert_eq!(
            text(Method::POST, "/containers/create"),
            "shoal does not support containers besides those of services (docker run, cp, commit, …) yet"
        );
        for path in ["/", "", "/containers", "/nope", "/nodes/a/b", "/services//logs", "/buildx"] {
            assert_eq!(text(Method::GET, path), "page not found", "{path}");
        }
    }
}
