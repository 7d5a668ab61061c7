//! Images that come from elsewhere, go to an archive, or go.

use super::*;

/// Docker's client reads one JSON object per line.
fn lines(body: &Value) -> Vec<Value> {
    let text = body.as_str().unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[tokio::test]
async fn a_pull_is_told_line_by_line() {
    let (status, body) = send(Method::POST, "/images/create?fromImage=far&tag=1", "").await;
    assert_eq!(status, StatusCode::OK);
    let lines = lines(&body);
    let texts: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    let digest = format!("Digest: {}", shoal::FAR_DIGEST);
    let newer = "Status: Downloaded newer image for far:1";
    assert_eq!(texts, ["Pulling fs layer", "Downloading", "Pull complete", &digest, newer]);
    assert_eq!(lines[1]["progressDetail"], json!({ "current": 5, "total": 10 }));
    assert_eq!(lines[1]["id"], "111111111111");
}

#[tokio::test]
async fn a_pull_that_fails_at_once_has_a_status() {
    let nowhere = "/images/create?fromImage=nowhere";
    refused(Method::POST, nowhere, "", StatusCode::NOT_FOUND, "has no image").await;
    let secret = "/images/create?fromImage=secret&tag=1";
    refused(Method::POST, secret, "", StatusCode::UNAUTHORIZED, "shoal login").await;
    refused(Method::POST, "/images/create", "", StatusCode::BAD_REQUEST, "fromImage is missing").await;
    refused(Method::POST, "/images/create?fromImage=A", "", StatusCode::BAD_REQUEST, "lower case").await;
    refused(Method::POST, "/images/create?fromSrc=-", "", StatusCode::NOT_IMPLEMENTED, "docker import").await;
    let other = "/images/create?fromImage=far&tag=1&platform=windows/amd64";
    refused(Method::POST, other, "", StatusCode::NOT_IMPLEMENTED, "another platform").await;
}

#[tokio::test]
async fn a_login_is_shown_to_the_registry() {
    let body = |password: &str| json!({ "username": "anna", "password": password }).to_string();
    let (status, answer) = send(Method::POST, "/auth", body("geheim")).await;
    assert_eq!((status, &answer["Status"]), (StatusCode::OK, &json!("Login Succeeded")));
    refused(Method::POST, "/auth", &body("falsch"), StatusCode::UNAUTHORIZED, "refused").await;
    refused(Method::POST, "/auth", "{}", StatusCode::BAD_REQUEST, "user name").await;
}
