//! Docker's own client, unmodified, against a served socket. Skipped where there is no `docker` command.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use super::shoal::Shoal;
use crate::api;

/// A served socket, and Docker's client pointed at it.
struct Docker {
    socket: PathBuf,
    directory: tempfile::TempDir,
}

impl Docker {
    async fn run(&self, line: &str) -> Output {
        let mut command = Command::new("docker");
        // Its configuration must not come from whoever runs the test.
        command.env("DOCKER_CONFIG", self.directory.path()).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(line.split_whitespace());
        command.output().await.unwrap()
    }

    /// Returns what a command prints, which must succeed.
    async fn out(&self, line: &str) -> String {
        let output = self.run(line).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        println!("$ docker {line}\n{out}{err}");
        assert!(output.status.success(), "docker {line}: {err}");
        out
    }

    /// Returns the error of a command, which must fail.
    async fn error(&self, line: &str) -> String {
        let output = self.run(line).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("$ docker {line}\n{error}");
        assert!(!output.status.success(), "docker {line}");
        error
    }
}

fn is_installed() -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory: PathBuf| Path::new(&directory).join("docker").exists())
    });
    if !found {
        println!("skipped: there is no docker command on this machine");
    }
    found
}

async fn served(test: impl AsyncFnOnce(Docker)) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("shoal.sock");
    let shoal = Shoal::new();
    let bound = api::bind(&socket).await.unwrap();
    let serving = tokio::spawn(api::serve(bound, shoal.handle.clone(), std::future::pending()));
    test(Docker { socket, directory }).await;
    serving.abort();
}

#[tokio::test]
async fn dockers_client_shows_the_shoal() {
    if !is_installed() {
        return;
    }
    served(async |docker| {
        let version = docker.out("version").await;
        assert!(version.contains("Server: shoal") && version.contains("1.44 (minimum version 1.24)"), "{version}");
        let info = docker.out("info").await;
        for line in ["Swarm: active", "Is Manager: true", "Managers: 3", "Nodes: 3", "Node Address: 192.0.2.1"] {
            assert!(info.contains(line), "{line}");
        }
        let nodes = docker.out("node ls").await;
        assert!(nodes.contains(" * ") && nodes.contains("Reachable") && nodes.contains("Down"), "{nodes}");
        assert!(!nodes.contains("Leader"));
        docker.out("node inspect --pretty self").await;
        docker.out("node ps self").await;
        let services = docker.out("service ls").await;
        assert!(
            services.lines().any(|line| line.contains("web") && line.contains("2/3") && line.contains("web:latest"))
        );
        let tasks = docker.out("service ps web").await;
        assert!(tasks.contains("\\_ web.1") && tasks.contains("node-b") && tasks.contains("Pending"), "{tasks}");
        docker.out("service inspect --pretty web").await;
        docker.out("network ls").await;
        let archive = docker.directory.path().join("small.tar");
        std::fs::write(&archive, super::archive::small()).unwrap();
        let loaded = docker.out(&format!("load --input {}", archive.display())).await;
        assert_eq!(loaded, "Loaded image: small:1\n");
        assert!(docker.out("image ls").await.contains("small        1"));
        docker.out("image inspect small:1").await;
        std::fs::write(&archive, vec![7; 8 << 20]).unwrap();
        let refused = docker.error(&format!("load --input {}", archive.display())).await;
        assert!(refused.contains("cannot load the image"), "{refused}");
        docker.out("image rm small:1").await;
        docker.out("ps").await;
        docker.out("secret ls").await;
        docker.out("swarm join-token manager").await;
    })
    .await;
}

#[tokio::test]
async fn dockers_client_runs_a_services_life() {
    if !is_installed() {
        return;
    }
    served(async |docker| {
        let create = "service create --detach --name new --replicas 2 --env A=1 --limit-memory 64m \
                      --restart-condition on-failure --network shoal far:1 serve --port 80";
        docker.out(create).await;
        let inspected = docker.out("service inspect new").await;
        let parsed: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let container = &parsed[0]["Spec"]["TaskTemplate"]["ContainerSpec"];
        assert_eq!(container["Image"], format!("far:1@{}", super::shoal::FAR_DIGEST));
        assert_eq!(container["Args"], serde_json::json!(["serve", "--port", "80"]));
        docker.out("service scale --detach new=5").await;
        docker.out("service update --detach --env-add B=2 --image far:1 new").await;
        docker.out("service update --detach --force new").await;
        assert!(docker.out("service ls").await.contains("0/5"));
        docker.out("service rm new").await;

        for (line, part) in [
            ("service create -d --name web far:1", "name conflicts with an existing object"),
            ("service create -d --name a.b far:1", "not a valid name"),
            ("service create -d --name x nowhere:1", "is on no node of this shoal"),
            ("service create -d --name x --mount type=volume,target=/a far:1", "--mount"),
            ("service create -d --name x --publish 80:80 far:1", "--publish"),
            ("service create -d --name x --replicas 200000 far:1", "200000 replicas"),
            ("service rollback web", "rollback"),
            ("pause web.1", "containers besides those of services"),
            ("run far:1", "containers"),
            ("swarm init", "docker swarm init"),
        ] {
            let error = docker.error(line).await;
            assert!(error.contains(part), "{line}: {error}");
        }
    })
    .await;
}
