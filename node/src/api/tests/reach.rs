//! Logs, commands and questions about containers, as clients ask for them.

use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode};
use futures::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::shoal::Shoal;
use super::{ask, get, refused, send};
use crate::api;
use crate::executor::health::OUTPUT_BYTES_MAX;

/// Returns the frames of a multiplexed stream, none of which is long.
fn frames(text: &Value) -> Vec<(u8, String)> {
    cut(text.as_str().unwrap().as_bytes())
}

fn cut(mut rest: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let Some((&[stream, 0, 0, 0, a, b, c, d], after)) = rest.split_first_chunk::<8>() {
        let (text, after) = after.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
        frames.push((stream, String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    assert_eq!(rest, b"");
    frames
}

async fn logs(path: &str) -> Vec<(u8, String)> {
    let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
    let answer = api::router::router(Shoal::new().handle).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    cut(&to_bytes(answer.into_body(), 1 << 20).await.unwrap())
}

#[tokio::test]
async fn logs_of_a_service_come_from_all_nodes_in_order_of_time() {
    let all = logs("/services/web/logs?stdout=1&stderr=1").await;
    let lines: Vec<(u8, &str)> = all.iter().map(|(stream, text)| (*stream, text.as_str())).collect();
    let note = "shoal: the logs on node-c are missing: its node cannot be reached: it is down\n";
    assert_eq!(lines, [(2, note), (1, "one\n"), (1, "two\n"), (1, "three\n"), (2, "four\n")]);
    let errors = logs("/services/web/logs?stderr=1&timestamps=1").await;
    assert_eq!(errors[1], (2, "2026-01-01T00:00:04.000000000Z four\n".to_owned()));
    let last = logs("/services/web/logs?stdout=1&stderr=1&tail=1&details=1").await;
    assert_eq!(last.len(), 4);
    let (node, task) = ("com.docker.swarm.node.id=", "com.docker.swarm.task.id=");
    assert!(last.iter().all(|(_, text)| text.starts_with(node) && text.contains(task)), "{last:?}");
    assert!(last[0].1.contains(",shoal.note=1 shoal: "), "{last:?}");
    assert!(last[3].1.ends_with(" four\n"), "{last:?}");
}

#[tokio::test]
async fn logs_of_a_task_and_of_its_container_are_the_same_wherever_it_runs() {
    let list = get("/tasks").await;
    let on = |name: &str, state: &str| {
        let fits = |task: &&Value| task["NodeID"] == name && task["Status"]["State"] == state;
        list.as_array().unwrap().iter().find(fits).unwrap()["ID"].as_str().unwrap().to_owned()
    };
    let nodes = get("/nodes").await;
    let id = nodes.as_array().unwrap().iter().find(|node| node["Description"]["Hostname"] == "node-b").unwrap();
    let far = on(id["ID"].as_str().unwrap(), "running");
    for path in [
        format!("/tasks/{far}/logs?stdout=1"),
        format!("/containers/{far}/logs?stdout=1"),
        format!("/containers/web.2.{far}/logs?stdout=1"),
        "/containers/web.2/logs?stdout=1".to_owned(),
        format!("/containers/{}/logs?stdout=1", &far[..12]),
    ] {
        assert_eq!(logs(&path).await, [(1, "three\n".to_owned())], "{path}");
    }
    let nothing = logs("/containers/web.2/logs?stderr=1").await;
    assert_eq!(nothing, []);
    for (path, status, part) in [
        ("/services/nope/logs?stdout=1", StatusCode::NOT_FOUND, "service nope not found"),
        ("/services/web/logs", StatusCode::BAD_REQUEST, "choose at least one stream"),
        ("/services/web/logs?stdout=1&tail=x", StatusCode::BAD_REQUEST, "tail"),
        ("/services/web/logs?stdout=1&since=x", StatusCode::BAD_REQUEST, "since"),
        ("/containers/nope/logs?stdout=1", StatusCode::NOT_FOUND, "No such container: nope"),
    ] {
        refused(Method::GET, path, "", status, part).await;
    }
}

#[tokio::test]
async fn a_followed_log_shows_what_is_there_and_stays_open() {
    let request = axum::http::Request::get("/containers/web.2/logs?stdout=1&follow=1").body(Body::empty());
    let answer = api::router::router(Shoal::new().handle).oneshot(request.unwrap()).await.unwrap();
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.ends_with(b"three\n"));
    assert!(body.frame().now_or_never().is_none());
}

#[tokio::test]
async fn a_container_is_shown_and_asked_by_name() {
    let container = get("/containers/web.2/json").await;
    assert_eq!(container["State"]["Status"], "running");
    let health = &container["State"]["Health"];
    assert_eq!((&health["Status"], &health["FailingStreak"]), (&json!("unhealthy"), &json!(3)));
    // Another node may say more than it should.
    assert_eq!(health["Log"][0]["Output"].as_str().map(str::len), Some(OUTPUT_BYTES_MAX));
    assert_eq!((&container["Path"], &container["Node"]["Name"]), (&json!("serve"), &json!("node-b")));
    assert_eq!(container["Config"]["Labels"]["com.docker.swarm.service.name"], "web");
    let sample = get("/containers/web.1/stats?stream=0&one-shot=1").await;
    assert_eq!(
        (&sample["cpu_stats"]["cpu_usage"]["total_usage"], &sample["cpu_stats"]["online_cpus"]),
        (&json!(5), &json!(2))
    );
    assert_eq!(sample["memory_stats"]["limit"], json!(1 << 30));
    let top = get("/containers/web.1/top?ps_args=-ef").await;
    assert_eq!(top["Processes"], json!([["0", "42", "1", "2", "00:01:01", "serve --port 80"]]));
    refused(Method::GET, "/containers/web.1/top?ps_args=aux", "", StatusCode::NOT_IMPLEMENTED, "docker top").await;
    assert_eq!(send(Method::POST, "/containers/web.1/kill?signal=HUP", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(send(Method::POST, "/containers/web.1/stop?t=3", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(send(Method::POST, "/containers/web.1/wait", "").await.1, json!({ "StatusCode": 7 }));
    refused(Method::POST, "/containers/web.1/kill?signal=64", "", StatusCode::CONFLICT, "is not running").await;
    refused(Method::POST, "/containers/web.1/kill?signal=BARK", "", StatusCode::BAD_REQUEST, "invalid signal: BARK")
        .await;
    refused(Method::POST, "/containers/nope/stop", "", StatusCode::NOT_FOUND, "No such container").await;
    refused(Method::POST, "/containers/web.1/rename?name=x", "", StatusCode::NOT_IMPLEMENTED, "containers").await;
}

async fn announce(shoal: &Shoal, body: Value) -> String {
    let (status, answer) = ask(shoal, Method::POST, "/containers/web.2/exec", body.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["Id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_command_without_input_prints_and_tells_its_exit_status() {
    let shoal = Shoal::new();
    let id = announce(&shoal, json!({ "Cmd": ["cat"], "AttachStdout": true, "AttachStderr": true })).await;
    let (status, said) = ask(&shoal, Method::POST, &format!("/exec/{id}/start"), "{}").await;
    assert_eq!((status, frames(&said)), (StatusCode::OK, vec![(2, "bye\n".to_owned())]));
    let (_, shown) = ask(&shoal, Method::GET, &format!("/exec/{id}/json"), "").await;
    assert_eq!((&shown["Running"], &shown["ExitCode"]), (&json!(false), &json!(3)));
    assert_eq!(shown["ProcessConfig"]["entrypoint"], "cat");
    let (status, _) = ask(&shoal, Method::POST, &format!("/exec/{id}/start"), "{}").await;
    assert_eq!(status, StatusCode::CONFLICT);

    let id = announce(&shoal, json!({ "Cmd": ["nowhere"], "AttachStdout": true })).await;
    let (_, said) = ask(&shoal, Method::POST, &format!("/exec/{id}/start"), "{}").await;
    assert!(frames(&said)[0].1.contains("no such command"));
    assert_eq!(ask(&shoal, Method::GET, &format!("/exec/{id}/json"), "").await.1["ExitCode"], 127);

    let id = announce(&shoal, json!({ "Cmd": ["lost"], "AttachStdout": true })).await;
    let (_, said) = ask(&shoal, Method::POST, &format!("/exec/{id}/start"), "{}").await;
    assert!(frames(&said)[0].1.contains("the node of this task was lost"));
    assert_eq!(ask(&shoal, Method::GET, &format!("/exec/{id}/json"), "").await.1["ExitCode"], 255);

    for (body, status, part) in [
        (json!({}), StatusCode::BAD_REQUEST, "No exec command specified"),
        (json!({ "Cmd": ["cat"], "DetachKeys": "ctrl-1" }), StatusCode::BAD_REQUEST, "Invalid escape keys (ctrl-1)"),
        (json!({ "Cmd": ["cat"], "Colour": "red" }), StatusCode::BAD_REQUEST, "unknown field Colour"),
    ] {
        refused(Method::POST, "/containers/web.1/exec", &body.to_string(), status, part).await;
    }
    refused(Method::POST, "/exec/nope/start", "{}", StatusCode::NOT_FOUND, "No such exec instance").await;
    refused(Method::GET, "/exec/nope/json", "", StatusCode::NOT_FOUND, "No such exec instance").await;
}

/// The connection becomes the command's streams; each direction ends by itself.
#[tokio::test]
async fn a_command_with_input_takes_the_connection_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shoal.sock");
    let shoal = Shoal::new();
    let socket = api::bind(&path).await.unwrap();
    let serving = tokio::spawn(api::serve(socket, shoal.handle.clone(), std::future::pending()));
    let body = json!({ "Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "AttachStderr": true });
    let id = announce(&shoal, body).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "POST /v1.44/exec/{id}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: tcp"), "{head}");
    assert!(head.contains("application/vnd.docker.multiplexed-stream"), "{head}");
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 13];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x01\0\0\0\0\0\0\x05hello");
    let (status, _) = ask(&shoal, Method::POST, &format!("/exec/{id}/resize?h=5&w=7"), "").await;
    assert_eq!(status, StatusCode::OK);
    stream.read_exact(&mut echoed[..11]).await.unwrap();
    assert_eq!(&echoed[..11], b"\x01\0\0\0\0\0\0\x035x7");
    assert_eq!(ask(&shoal, Method::GET, &format!("/exec/{id}/json"), "").await.1["Running"], true);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x02\0\0\0\0\0\0\x04bye\n");
    assert_eq!(ask(&shoal, Method::GET, &format!("/exec/{id}/json"), "").await.1["ExitCode"], 3);
    let (status, _) = ask(&shoal, Method::POST, &format!("/exec/{id}/resize?h=5&w=7"), "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    serving.abort();
}

#[tokio::test]
async fn who_attaches_sees_the_log_if_he_wants_and_then_what_comes() {
    let shoal = Shoal::new();
    let path = "/containers/web.2/attach?stream=1&stdout=1&stderr=1";
    let (status, said) = ask(&shoal, Method::POST, path, "").await;
    assert_eq!((status, frames(&said)), (StatusCode::OK, vec![(2, "bye\n".to_owned())]));
    let (_, said) = ask(&shoal, Method::POST, "/containers/web.2/attach?stream=1&stdout=1", "").await;
    assert_eq!(frames(&said), []);
    let (_, logs) = ask(&shoal, Method::GET, "/containers/web.2/logs?stdout=1&stderr=1", "").await;
    assert!(!frames(&logs).is_empty());
    let (_, said) = ask(&shoal, Method::POST, &format!("{path}&logs=1"), "").await;
    assert_eq!(frames(&said)[..frames(&said).len() - 1], frames(&logs));
    let (_, said) = ask(&shoal, Method::POST, "/containers/web.2/attach?logs=1&stdout=1&stderr=1", "").await;
    assert_eq!(frames(&said), frames(&logs));
    let (status, _) = ask(&shoal, Method::POST, "/containers/web.2/resize?h=5&w=7", "").await;
    assert_eq!(status, StatusCode::OK);
    for (path, status, part) in [
        ("/containers/nope/attach?stream=1", StatusCode::NOT_FOUND, "No such container"),
        ("/containers/web.2/attach?stream=1&detachKeys=ctrl-1", StatusCode::BAD_REQUEST, "Invalid escape keys"),
        ("/containers/web.2/resize?h=5&w=x", StatusCode::BAD_REQUEST, "w"),
    ] {
        refused(Method::POST, path, "", status, part).await;
    }
}

#[tokio::test]
async fn events_are_kept_in_bounded_number_filtered_and_end_where_they_are_told_to() {
    let shoal = Shoal::new();
    let events = &shoal.handle.events;
    events.image("pull", "a:1");
    events.image("delete", "b:1");
    let until = api::time::now_ms() / 1_000 + 1;
    let path = |filters: &str| format!("/events?since=1&until={until}&filters={filters}");
    let (_, one) = ask(&shoal, Method::GET, &path(r#"{"event":["pull"],"type":["image"]}"#), "").await;
    assert_eq!((&one["Type"], &one["Action"], &one["Actor"]["ID"]), (&json!("image"), &json!("pull"), &json!("a:1")));
    assert_eq!(
        (&one["scope"], one["timeNano"].as_u64().unwrap() / 1_000_000_000),
        (&json!("local"), one["time"].as_u64().unwrap())
    );
    let (_, none) = ask(&shoal, Method::GET, &path(r#"{"type":["node"]}"#), "").await;
    assert_eq!(none, "");
    let (_, before) = ask(&shoal, Method::GET, "/events?since=1&until=2", "").await;
    assert_eq!(before, "");
    for _ in 0..2_000 {
        events.image("tag", "c:1");
    }
    let until = api::time::now_ms() / 1_000 + 1;
    let (_, all) = ask(&shoal, Method::GET, &format!("/events?since=1&until={until}"), "").await;
    let lines: Vec<&str> = all.as_str().unwrap().lines().collect();
    assert!((lines.len(), lines[0].contains("tag")) == (1_024, true), "{} events", lines.len());
    refused(Method::GET, "/events?since=never", "", StatusCode::BAD_REQUEST, "invalid since").await;
    refused(Method::GET, r#"/events?filters={"colour":["red"]}"#, "", StatusCode::BAD_REQUEST, "invalid filter").await;
}
