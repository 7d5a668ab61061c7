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
async fn dockers_client_makes_uses_and_removes_networks_secrets_and_configs() {
    if !is_installed() {
        return;
    }
    served(async |docker| {
        let file = docker.directory.path().join("bytes");
        std::fs::write(&file, "the bytes").unwrap();
        let file = file.display();
        let network = docker.out("network create -d overlay --attachable --label a=b back").await;
        assert!(docker.out("network ls --filter label=a=b -q").await.len() > 5);
        assert!(docker.out("network inspect back").await.contains(network.trim()));
        docker.out(&format!("secret create --label a=b key {file}")).await;
        docker.out(&format!("config create conf {file}")).await;
        assert!(docker.out("secret ls --filter name=k").await.contains("key"));
        assert!(docker.out("secret inspect --pretty key").await.contains("key"));
        assert!(!docker.out("secret inspect key").await.contains("Data"));
        assert!(docker.out("config inspect --pretty conf").await.contains("the bytes"));

        docker.out(
            "service create -d --name new --network name=back,alias=db --secret source=key,target=/k,uid=7,mode=0400 \
             --config conf --publish 8080:80/udp --publish mode=host,target=81 --endpoint-mode vip far:1",
        ).await;
        let shown = docker.out("service inspect new").await;
        for part in [network.trim(), "\"db\"", "\"Name\": \"/k\"", "\"Mode\": 256", "8080", "\"host\"", "vip"] {
            assert!(shown.contains(part), "{part}");
        }
        assert!(docker.out("service inspect --pretty new").await.contains("back"));
        // What the client was shown it sends back, with one thing changed.
        docker.out("network create -d overlay front").await;
        docker
            .out("service update -d --network-add front --secret-rm key --config-rm conf --publish-rm 80/udp new")
            .await;
        let shown = docker.out("service inspect new").await;
        assert!(shown.contains(network.trim()) && !shown.contains("8080") && !shown.contains("conf"), "{shown}");
        docker.out("service update -d --network-rm back new").await;
        assert!(!docker.out("service inspect new").await.contains(network.trim()));
        docker.out("secret rm key").await;
        docker.out("config rm conf").await;
        docker.out("network rm back").await;
        docker.out("service rm new").await;
        assert!(docker.out("network prune -f").await.contains("front"));

        for (line, part) in [
            ("network create -d macvlan x", "network drivers besides overlay"),
            ("network create -d overlay --subnet 10.1.0.0/16 x", "subnets of one's own"),
            ("network create -d overlay -o a=b x", "--opt besides encrypted"),
            ("network create -d overlay a/b", "not a valid name"),
            ("network rm shoal", "pre-defined"),
            ("network rm nowhere", "not found"),
            ("secret create -d nfs x", "drivers of secrets"),
            (&format!("config create --template-driver golang x {file}"), "templates in configs"),
            (&format!("secret create a/b {file}"), "not a valid name"),
            ("secret create empty /dev/null", "data is empty"),
            ("secret rm nowhere", "not found"),
        ] {
            let error = docker.error(line).await;
            assert!(error.contains(part), "{line}: {error}");
        }
        let large = docker.directory.path().join("large");
        std::fs::write(&large, vec![7; 500 * 1024 + 1]).unwrap();
        assert!(docker.error(&format!("secret create x {}", large.display())).await.contains("512001 bytes"));
    })
    .await;
}

/// What the client sends is kept whole, and what it sends back after an inspection is the same.
#[tokio::test]
async fn dockers_client_sets_and_changes_all_options_of_a_container() {
    if !is_installed() {
        return;
    }
    served(async |docker| {
        let create = "service create --detach --name new --init --tty --read-only --group video --host db:10.0.0.7 \
                      --dns 10.0.0.53 --dns-search example.org --dns-option timeout:3 --cap-add NET_ADMIN --cap-drop ALL \
                      --ulimit nofile=100:200 --sysctl net.core.somaxconn=512 --stop-signal SIGINT --stop-grace-period 3s \
                      --mount type=bind,source=/etc,target=/host,readonly --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700 \
                      --health-cmd true --health-interval 2s --health-timeout 1s --health-retries 5 --health-start-period 4s \
                      --health-start-interval 500ms --log-driver json-file --log-opt max-size=1m --log-opt max-file=3 far:1";
        docker.out(create).await;
        let inspect = async || {
            let inspected: serde_json::Value = serde_json::from_str(&docker.out("service inspect new").await).unwrap();
            inspected[0]["Spec"]["TaskTemplate"].clone()
        };
        let made = inspect().await;
        let expected = serde_json::json!({
            "Init": true, "TTY": true, "ReadOnly": true, "Groups": ["video"], "Hosts": ["10.0.0.7 db"],
            "DNSConfig": { "Nameservers": ["10.0.0.53"], "Search": ["example.org"], "Options": ["timeout:3"] },
            "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["ALL"],
            "Ulimits": [{ "Name": "nofile", "Soft": 100, "Hard": 200 }],
            "Sysctls": { "net.core.somaxconn": "512" }, "StopSignal": "SIGINT", "StopGracePeriod": 3_000_000_000_u64,
            "Mounts": [
                { "Type": "bind", "Source": "/etc", "Target": "/host", "ReadOnly": true },
                { "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 1 << 20, "Mode": 0o700 } },
            ],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_u64, "Timeout": 1_000_000_000,
                "Retries": 5, "StartPeriod": 4_000_000_000_u64, "StartInterval": 500_000_000,
            },
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(made["ContainerSpec"][field], *value, "{field}");
        }
        assert_eq!(made["LogDriver"]["Options"], serde_json::json!({ "max-size": "1000000", "max-file": "3" }));
        // An update that changes nothing of a task sends all of it back.
        docker.out("service scale --detach new=2").await;
        assert_eq!(inspect().await, made);
        let update = "service update --detach --mount-rm /t --group-rm video --host-rm db:10.0.0.7 --dns-rm 10.0.0.53 \
                      --ulimit-rm nofile --sysctl-rm net.core.somaxconn --no-healthcheck --tty=false new";
        docker.out(update).await;
        let changed = inspect().await["ContainerSpec"].clone();
        for field in ["Groups", "Hosts", "Ulimits", "Sysctls", "TTY"] {
            assert!(changed[field].is_null(), "{field}: {}", changed[field]);
        }
        assert_eq!(changed["Mounts"].as_array().unwrap().len(), 1);
        assert_eq!(changed["Healthcheck"]["Test"], serde_json::json!(["NONE"]));
        assert_eq!(changed["DNSConfig"]["Search"], serde_json::json!(["example.org"]));
        docker.out("service inspect --pretty new").await;
    })
    .await;
}

#[tokio::test]
async fn dockers_client_manages_volumes() {
    if !is_installed() {
        return;
    }
    served(async |docker| {
        assert_eq!(docker.out("volume create --label a=b mine").await, "mine\n");
        docker.out("volume create mine").await;
        assert_eq!(docker.out("volume ls --quiet").await, "mine\n");
        assert_eq!(docker.out("volume ls --quiet --filter label=a=c").await, "");
        let inspected: serde_json::Value = serde_json::from_str(&docker.out("volume inspect mine").await).unwrap();
        assert_eq!((&inspected[0]["Labels"]["a"], &inspected[0]["Driver"]), (&"b".into(), &"local".into()));
        assert!(inspected[0]["Mountpoint"].as_str().unwrap().ends_with("/volumes/mine/_data"));
        docker.out("service create --detach --name uses --mount source=mine,target=/a far:1").await;
        assert!(docker.error("volume rm mine").await.contains("in use"));
        docker.out("volume prune --force --all").await;
        assert_eq!(docker.out("volume ls --quiet").await, "mine\n");
        docker.out("service rm uses").await;
        docker.out("volume rm mine").await;
        for (line, part) in [
            ("volume create --driver nfs x1", "volume drivers"),
            ("volume create --opt type=nfs x1", "options of volumes"),
            ("volume create .x", "not a valid name"),
            ("volume inspect mine", "no such volume"),
            ("volume rm mine", "not found"),
            ("service create -d --name x --mount source=v1,target=/a,volume-opt=type=nfs far:1", "volume-opt"),
        ] {
            let error = docker.error(line).await;
            assert!(error.contains(part), "{line}: {error}");
        }
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
            ("service create -d --name x --mount type=volume,target=/a,volume-driver=nfs far:1", "volume drivers"),
            ("service create -d --name x --cap-add FLY far:1", "FLY"),
            ("service create -d --name x --sysctl kernel.panic=1 far:1", "kernel.panic"),
            ("service create -d --name x --log-driver syslog far:1", "json-file"),
            ("service create -d --name x --network nowhere far:1", "network nowhere not found"),
            ("service create -d --name x --secret nowhere far:1", "secret not found: nowhere"),
            ("service create -d --name x --replicas 200000 far:1", "200000 replicas"),
            ("service rollback web", "does not have a previous spec"),
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
