//! The API as clients see it: the real router, over a shoal of three nodes that stands still.

mod archive;
mod docker;
mod images;
mod own;
mod reach;
mod shoal;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::router::router;
use shoal::Shoal;
pub(crate) use shoal::views;

/// Sends a request to a new shoal's node, and returns status and body.
async fn send(method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    ask(&Shoal::new(), method, path, body).await
}

async fn ask(shoal: &Shoal, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let path = path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace(' ', "%20");
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let answer = router(shoal.handle.clone()).oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["api-version"], "1.44");
    assert_eq!(answer.headers()["ostype"], "linux");
    let status = answer.status();
    let bytes = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
    (status, body)
}

async fn get(path: &str) -> Value {
    let (status, body) = send(Method::GET, path, "").await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// Asserts that a request is refused with this status and a message that contains `part`.
async fn refused(method: Method, path: &str, body: &str, status: StatusCode, part: &str) {
    let (found, answer) = send(method, path, body.to_owned()).await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert_eq!(found, status, "{path}: {answer}");
    assert!(message.contains(part), "{path}: {answer}");
}

fn names(list: &Value, pointer: &str) -> Vec<String> {
    let text = |item: &Value| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn concurrent_writes_are_shown_with_authors_and_times() {
    let conflicts = get("/shoal/conflicts").await;
    let versions = &conflicts[0]["versions"];
    assert_eq!((&conflicts[0]["kind"], &conflicts[0]["name"]), (&json!("service"), &json!("web")));
    assert_eq!((&versions[0]["author_name"], &versions[0]["removed"]), (&json!("node-b"), &json!(false)));
    assert_eq!(versions[0]["spec"], Value::Null, "what this node cannot read is shown without its content");
    assert_eq!((&versions[1]["author_name"], &versions[1]["removed"]), (&Value::Null, &json!(true)));
    assert_eq!(get("/services/web").await["Conflict"], conflicts[0]);
    assert_eq!(get("/services/db").await.get("Conflict"), None);
}

#[tokio::test]
async fn whoever_changes_something_is_told_on_how_many_disks_it_is() {
    let (status, answer) = send(Method::DELETE, "/services/web", "").await;
    assert_eq!(status, StatusCode::OK);
    let warning = "stored on this node's disk only: no other node is up";
    assert_eq!(answer, json!({ "Warnings": [warning], "StoredOn": 1 }));
}

#[tokio::test]
async fn clients_can_negotiate_a_version() {
    for (method, path) in [(Method::GET, "/_ping"), (Method::HEAD, "/_ping"), (Method::GET, "/v1.24/_ping")] {
        assert_eq!(send(method, path, "").await.0, StatusCode::OK, "{path}");
    }
    let version = get("/v1.44/version").await;
    assert_eq!(version["ApiVersion"], "1.44");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(version["Os"], "linux");
    refused(Method::GET, "/v1.45/version", "", StatusCode::BAD_REQUEST, "client version 1.45 is too new").await;
    refused(Method::GET, "/v1.23/version", "", StatusCode::BAD_REQUEST, "client version 1.23 is too old").await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    for path in ["/", "/nope", "/v1.44", "/v1.44/nope", "/vx.y/services", "/services/a/b/c", "//services"] {
        refused(Method::GET, path, "", StatusCode::NOT_FOUND, "page not found").await;
    }
    refused(Method::PUT, "/services", "", StatusCode::METHOD_NOT_ALLOWED, "method not allowed").await;
    refused(Method::DELETE, "/services/create", "", StatusCode::METHOD_NOT_ALLOWED, "method not allowed").await;
    refused(Method::POST, "/v1.44/swarm/init", "{}", StatusCode::NOT_IMPLEMENTED, "docker swarm init").await;
    refused(Method::POST, "/containers/create", "{}", StatusCode::NOT_IMPLEMENTED, "containers").await;
    refused(Method::GET, "/containers/x/attach/ws", "", StatusCode::NOT_IMPLEMENTED, "websocket").await;
    refused(Method::POST, "/nodes/a/update?version=0", "{}", StatusCode::NOT_FOUND, "node a not found").await;
    let promote = r#"{"Role":"worker"}"#;
    let path = "/nodes/self/update?version=0";
    refused(Method::POST, path, promote, StatusCode::NOT_IMPLEMENTED, "docker node promote").await;
    refused(Method::GET, "/secrets/x", "", StatusCode::NOT_FOUND, "secret x not found").await;
    refused(Method::POST, "/images/web/push", "", StatusCode::NOT_IMPLEMENTED, "docker push").await;
}

#[tokio::test]
async fn info_has_a_true_swarm_block() {
    let info = get("/info").await;
    let swarm = &info["Swarm"];
    assert_eq!(swarm["LocalNodeState"], "active");
    assert_eq!(swarm["ControlAvailable"], true);
    assert_eq!((swarm["Nodes"].as_i64(), swarm["Managers"].as_i64()), (Some(3), Some(3)));
    assert_eq!(swarm["NodeID"], info["ID"]);
    assert_eq!(info["ContainersRunning"], 1);
}

#[tokio::test]
async fn nodes_are_listed_and_found_by_id_prefix_name_and_self() {
    let nodes = get("/nodes").await;
    assert_eq!(names(&nodes, "/Description/Hostname"), ["node-a", "node-b", "node-c"]);
    assert_eq!(names(&nodes, "/Status/State"), ["ready", "ready", "down"]);
    assert_eq!(names(&nodes, "/ManagerStatus/Reachability"), ["reachable", "reachable", "unreachable"]);
    assert!(nodes.as_array().unwrap().iter().all(|node| node["ManagerStatus"]["Leader"] == false));
    let id = nodes[1]["ID"].as_str().unwrap();
    for name in [id, &id[..12], "node-b", "NODE-B"] {
        assert_eq!(get(&format!("/nodes/{name}")).await["ID"], id, "{name}");
    }
    assert_eq!(get("/nodes/self").await["Description"]["Hostname"], "node-a");
    refused(Method::GET, "/nodes/zz", "", StatusCode::NOT_FOUND, "node zz not found").await;
    assert_eq!(names(&get(r#"/nodes?filters={"name":["node-c"]}"#).await, "/Status/State"), ["down"]);
}

#[tokio::test]
async fn services_are_listed_with_their_status_and_filtered() {
    let list = get("/services?status=true").await;
    assert_eq!(names(&list, "/Spec/Name"), ["db", "web"]);
    assert_eq!(list[1]["ServiceStatus"], json!({ "RunningTasks": 2, "DesiredTasks": 3, "CompletedTasks": 0 }));
    assert!(get("/services").await[1].get("ServiceStatus").is_none());
    for (filters, expected) in [
        (r#"{"name":["we"]}"#, vec!["web"]),
        (r#"{"name":{"db":true}}"#, vec!["db"]),
        (r#"{"label":["tier=front"]}"#, vec!["web"]),
        (r#"{"label":["tier=back"]}"#, vec![]),
        (r#"{"mode":["global"]}"#, vec![]),
        (r#"{"id":["nope"]}"#, vec![]),
    ] {
        assert_eq!(names(&get(&format!("/services?filters={filters}")).await, "/Spec/Name"), expected, "{filters}");
    }
    refused(Method::GET, r#"/services?filters={"x":[]}"#, "", StatusCode::BAD_REQUEST, "invalid filter 'x'").await;
    refused(Method::GET, "/services/nope", "", StatusCode::NOT_FOUND, "service nope not found").await;
    let web = get("/services/WEB").await;
    assert_eq!(web["Version"]["Index"], 7);
    assert_eq!(web["Spec"]["Mode"]["Replicated"]["Replicas"], 3);
}

#[tokio::test]
async fn tasks_are_shown_with_dockers_words_and_free_slots_as_pending() {
    let tasks = get(r#"/tasks?filters={"service":["web"]}"#).await;
    assert_eq!(names(&tasks, "/Status/State"), ["running", "failed", "running", "running", "pending"]);
    assert_eq!(names(&tasks, "/DesiredState"), ["running", "shutdown", "running", "shutdown", "running"]);
    assert_eq!(tasks[1]["Status"]["Err"], "task: non-zero exit (1)");
    assert_eq!(tasks[1]["Status"]["ContainerStatus"]["ExitCode"], 1);
    assert_eq!(tasks[3]["Status"]["Err"], "its node is down");
    assert!(tasks[4].get("NodeID").is_none());
    assert!(tasks[4]["CreatedAt"].as_str() > tasks[3]["CreatedAt"].as_str(), "what waits comes before what was");
    assert!(tasks[0]["CreatedAt"].as_str() > tasks[1]["CreatedAt"].as_str(), "the newest of a slot comes first");
    assert_eq!(tasks[4]["ID"], get(r#"/tasks?filters={"service":["web"]}"#).await[4]["ID"]);
    let pending = tasks[4]["ID"].as_str().unwrap();
    assert_eq!(get(&format!("/tasks/{pending}")).await["Slot"], 3);
    for (filters, expected) in [
        (r#"{"service":["web"],"desired-state":["running"]}"#, 3),
        (r#"{"service":["web"],"_up-to-date":{"true":true}}"#, 4),
        (r#"{"service":["web"],"node":["self"]}"#, 2),
        (r#"{"service":["web"],"name":["web.2"]}"#, 1),
        (r#"{"label":["x"]}"#, 0),
    ] {
        let found = get(&format!("/tasks?filters={filters}")).await;
        assert_eq!(found.as_array().unwrap().len(), expected, "{filters}: {found:#}");
    }
    refused(Method::GET, r#"/tasks?filters={"service":["x"]}"#, "", StatusCode::NOT_FOUND, "service x not found").await;
    refused(Method::GET, r#"/tasks?filters={"desired-state":["x"]}"#, "", StatusCode::BAD_REQUEST, "invalid filter")
        .await;
}

#[tokio::test]
async fn a_service_lives_from_create_to_remove() {
    let shoal = Shoal::new();
    let spec = json!({
        "Name": "new",
        "TaskTemplate": { "ContainerSpec": { "Image": "far:1" } },
        "Mode": { "Replicated": { "Replicas": 2 } }
    });
    let (status, created) = ask(&shoal, Method::POST, "/services/create", spec.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let id = created["ID"].as_str().unwrap().to_owned();
    let (_, service) = ask(&shoal, Method::GET, &format!("/services/{id}"), "").await;
    let image = format!("far:1@{}", shoal::FAR_DIGEST);
    assert_eq!(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], image, "the image is pinned");

    let (status, again) = ask(&shoal, Method::POST, "/services/create", spec.to_string()).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");
    assert!(again["message"].as_str().unwrap().contains("already exists"));

    let mut changed = service["Spec"].clone();
    changed["Mode"]["Replicated"]["Replicas"] = json!(5);
    let version = service["Version"]["Index"].as_u64().unwrap();
    let path = |version| format!("/services/new/update?version={version}");
    let (status, answer) = ask(&shoal, Method::POST, &path(version), changed.to_string()).await;
    assert_eq!((status, &answer["StoredOn"]), (StatusCode::OK, &json!(1)));
    let (status, stale) = ask(&shoal, Method::POST, &path(version), changed.to_string()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(stale["message"].as_str().unwrap().ends_with("update out of sequence"), "{stale}");
    let rollback = format!("{}&rollback=previous", path(version + 1));
    let (status, refused) = ask(&shoal, Method::POST, &rollback, changed.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().unwrap().contains("does not have a previous spec"), "{refused}");
    let rollback = format!("{}&rollback=yesterday", path(version + 1));
    assert_eq!(ask(&shoal, Method::POST, &rollback, changed.to_string()).await.0, StatusCode::BAD_REQUEST);

    assert_eq!(ask(&shoal, Method::DELETE, "/services/new", "").await.0, StatusCode::OK);
    assert_eq!(ask(&shoal, Method::DELETE, "/services/new", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_and_change_nothing() {
    let create = |body: &str| {
        let body = body.to_owned();
        async move { send(Method::POST, "/services/create", body).await }
    };
    for (body, status, part) in [
        ("", 400, "no body"),
        ("{", 400, "line 1 column 1"),
        ("[]", 400, "malformed JSON"),
        (r#"{"Name":"x","Colour":"red"}"#, 400, "unknown field Colour"),
        (r#"{"Name":"x"}"#, 400, "no image"),
        (r#"{"Name":"x.y","TaskTemplate":{"ContainerSpec":{"Image":"far:1"}}}"#, 400, "not a valid name"),
        (r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"nowhere:1"}}}"#, 404, "shoal image load"),
        (
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"far:1"}},"Mode":{"Replicated":{"Replicas":-1}}}"#,
            400,
            "-1 replicas",
        ),
        (r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"far:1","OomScoreAdj":5}}}"#, 501, "--oom-score-adj"),
    ] {
        let (found, answer) = create(body).await;
        assert_eq!(found.as_u16(), status, "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap_or_default().contains(part), "{body}: {answer}");
    }
    let (status, answer) = create(&" ".repeat((1 << 20) + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    refused(Method::POST, "/services/web/update", "{}", StatusCode::BAD_REQUEST, "invalid version").await;
    refused(Method::POST, "/services/web/update?version=x", "{}", StatusCode::BAD_REQUEST, "invalid version").await;
}

#[tokio::test]
async fn an_image_lives_from_load_to_removal() {
    let shoal = Shoal::new();
    let archive = archive::small();
    let (status, loaded) = ask(&shoal, Method::POST, "/images/load?quiet=1", archive.clone()).await;
    assert_eq!((status, &loaded), (StatusCode::OK, &json!({ "stream": "Loaded image: small:1\n" })));
    let (_, list) = ask(&shoal, Method::GET, r#"/images/json?filters={"label":["tier=front"]}"#, "").await;
    assert_eq!(list[0]["RepoTags"], json!(["small:1"]));
    assert_eq!(list[0]["Created"], 1_767_225_600);
    let (_, image) = ask(&shoal, Method::GET, "/images/small:1/json", "").await;
    assert_eq!((&image["Id"], &image["Config"]["Cmd"]), (&list[0]["Id"], &json!(["/whoami"])));

    let (status, _) = ask(&shoal, Method::POST, "/images/small:1/tag?repo=team/other&tag=2", "").await;
    assert_eq!(status, StatusCode::CREATED);
    let (_, known) = ask(&shoal, Method::GET, "/distribution/team/other:2/json", "").await;
    let digest = known["Descriptor"]["digest"].as_str().unwrap();
    let spec =
        json!({ "Name": "x", "TaskTemplate": { "ContainerSpec": { "Image": format!("team/other:2@{digest}") } } });
    assert_eq!(ask(&shoal, Method::POST, "/services/create", spec.to_string()).await.0, StatusCode::CREATED);

    let (_, removed) = ask(&shoal, Method::DELETE, "/images/small:1", "").await;
    assert_eq!(removed, json!([{ "Untagged": "small:1" }]), "it still has another name");
    let (_, removed) = ask(&shoal, Method::DELETE, "/images/team/other:2", "").await;
    assert_eq!(removed[0], json!({ "Untagged": "team/other:2" }));
    assert_eq!(ask(&shoal, Method::GET, "/images/json", "").await.1, json!([]));

    let (status, _) = ask(&shoal, Method::POST, "/images/load", archive[..archive.len() / 2].to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a truncated archive");
}

#[tokio::test]
async fn images_that_are_damaged_or_unknown_are_refused() {
    assert_eq!(get("/images/json").await, json!([]));
    refused(Method::GET, "/images/team/web:1/json", "", StatusCode::NOT_FOUND, "No such image: team/web:1").await;
    refused(Method::POST, "/images/load", "garbage", StatusCode::BAD_REQUEST, "cannot load the image").await;
    refused(Method::DELETE, "/images/team/web", "", StatusCode::NOT_FOUND, "No such image").await;
    refused(Method::GET, "/distribution/nowhere/json", "", StatusCode::NOT_FOUND, "on no node").await;
    refused(Method::GET, "/distribution/A/json", "", StatusCode::BAD_REQUEST, "lower case").await;
    let known = get("/distribution/far:1/json").await;
    assert_eq!(known["Descriptor"]["digest"], shoal::FAR_DIGEST);
}

#[tokio::test]
async fn the_status_tells_who_differs() {
    let status: super::status::Status = serde_json::from_value(get("/shoal/status").await).unwrap();
    assert!(!status.agreed);
    assert_eq!((status.tasks_running, status.tasks_wanted), (2, 4));
    let said = status.members.iter().map(|member| member.said.as_ref().map(|said| (said.agrees, said.behind)));
    assert_eq!(said.collect::<Vec<_>>(), [None, Some((false, 4)), None]);
    let join = get("/shoal/join").await;
    assert_eq!(join["manager"], "SHOAL-1-secret");
    let swarm = get("/swarm").await;
    assert_eq!(swarm["JoinTokens"]["Manager"], "SHOAL-1-secret");
}

#[tokio::test]
async fn containers_are_this_nodes_tasks() {
    let running = get("/containers/json").await;
    assert_eq!(running.as_array().unwrap().len(), 1);
    assert_eq!(running[0]["Labels"]["com.docker.swarm.service.name"], "web");
    assert_eq!(get("/containers/json?all=1").await.as_array().unwrap().len(), 2);
    let filters = r#"{"label":["com.docker.swarm.service.name=db"]}"#;
    assert_eq!(get(&format!("/containers/json?filters={filters}")).await, json!([]));
}

#[tokio::test]
async fn the_built_in_network_is_shown() {
    let list = get("/networks").await;
    assert_eq!(names(&list, "/Name"), ["shoal"]);
    let id = list[0]["Id"].as_str().unwrap();
    assert_eq!(get(&format!("/networks/{id}?scope=swarm")).await["Driver"], "overlay");
    refused(Method::GET, "/networks/other", "", StatusCode::NOT_FOUND, "network other not found").await;
}

#[tokio::test]
async fn a_live_socket_is_not_taken_over_but_a_stale_one_is() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/shoal.sock");
    let first = super::bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let error = super::bind(&path).await.unwrap_err().to_string();
    assert!(error.contains("is in use: another node runs here"), "{error}");
    drop(first);
    assert!(!path.exists());

    // A node that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(super::bind(&path).await.unwrap());

    std::fs::write(&path, "precious").unwrap();
    let error = super::bind(&path).await.unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn the_client_speaks_to_a_served_socket_until_it_stops() {
    use crate::client::{Client, ClientError};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shoal.sock");
    assert!(matches!(Client::connect(&path).await, Err(ClientError::NotRunning(_))));
    let shoal = Shoal::new();
    let socket = super::bind(&path).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(super::serve(socket, shoal.handle.clone(), async move {
        let _ = stopped.await;
    }));
    let client = Client::connect(&path).await.unwrap();
    assert_eq!(client.docker().list_services(None).await.unwrap().len(), 2);
    let status: super::status::Status = client.ask("/shoal/status").await.unwrap();
    assert_eq!(status.node.name, "node-a");
    let missing = client.docker().inspect_service("nope", None).await.map_err(|error| client.error(error));
    let missing = missing.unwrap_err();
    assert!(missing.is_status(404));
    assert_eq!(missing.to_string(), "service nope not found");
    // A client that listens for events for ever does not keep the node from stopping.
    let _events = tokio::spawn(async move { client.ask::<Value>("/events").await });
    stop.send(()).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(30), serving).await.unwrap().unwrap();
    assert!(!path.exists());
}
