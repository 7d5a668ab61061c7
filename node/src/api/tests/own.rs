//! Our own command line against a served socket.

use std::path::Path;
use std::process::ExitCode;

use axum::http::Method;
use clap::Parser;
use serde_json::Value;

use super::shoal::Shoal;
use super::{ask, names};
use crate::api;
use crate::cli::{self, Cli, Command};

const SHOP: &str = r#"
services:
  web:
    image: far:1
    networks: { front: { aliases: [www] }, back: {} }
    secrets: [{ source: key, target: /k, uid: "7", mode: 0400 }]
    configs: [conf]
    ports: ["8080:80", { target: 81, mode: host }]
    environment: { LEVEL: 3 }
    command: [serve, -v]
    healthcheck: { test: curl localhost, interval: 10s }
    ulimits: { nofile: { soft: 20, hard: 40 } }
    tmpfs: /run:size=64m,mode=1770
    volumes: ["data:/data", "/etc:/e:ro"]
    logging: { driver: json-file, options: { max-size: "10m", max-file: "3" } }
    extra_hosts: ["h:10.0.0.1"]
    dns: 10.0.0.2
    sysctls: { net.core.somaxconn: 1024 }
    cap_add: [NET_ADMIN]
    security_opt: ["no-new-privileges:true"]
    init: true
    read_only: false
    stop_grace_period: 5s
    deploy:
      replicas: 2
      labels: { a: b }
      resources: { limits: { cpus: '0.5', memory: 50M }, reservations: { memory: 10M } }
      placement: { constraints: ["node.labels.disk == ssd"], preferences: [{ spread: node.labels.zone }] }
      update_config: { parallelism: 2, delay: 10s, max_failure_ratio: 0.1 }
      restart_policy: { condition: on-failure, delay: 5s, max_attempts: 3 }
  db: { image: far:1, deploy: { mode: global } }
networks: { front: { attachable: true }, back: {} }
volumes: { data: { labels: { keep: "yes" } } }
secrets: { key: { file: key.txt } }
configs: { conf: { content: "a = 1" } }
"#;

/// A served socket, and a folder in which files may lie.
struct Own {
    shoal: Shoal,
    folder: tempfile::TempDir,
}

impl Own {
    /// Runs a command line, in which `DIR` is the folder.
    async fn run(&self, line: &str) -> anyhow::Result<ExitCode> {
        let folder = self.folder.path().to_str().unwrap();
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace("DIR", folder)).collect();
        let socket = self.folder.path().join("shoal.sock");
        let run = move || match Cli::try_parse_from(words)?.command {
            Command::Client(command) => cli::run(command, &socket),
            Command::Stack(command) => cli::stack::run(command, &socket),
            other => panic!("{other:?}"),
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn does(&self, line: &str) {
        let done = self.run(line).await;
        assert_eq!(done.as_ref().ok(), Some(&ExitCode::SUCCESS), "{line}: {done:?}");
    }

    async fn is_refused(&self, line: &str, part: &str) {
        let error = format!("{:#}", self.run(line).await.unwrap_err());
        assert!(error.contains(part), "{line}: {error}");
    }

    async fn get(&self, path: &str) -> Value {
        ask(&self.shoal, Method::GET, path, "").await.1
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

async fn served(test: impl AsyncFnOnce(&Own)) {
    let own = Own { shoal: Shoal::new(), folder: tempfile::tempdir().unwrap() };
    let socket: &Path = &own.folder.path().join("shoal.sock");
    let bound = api::bind(socket).await.unwrap();
    let serving = tokio::spawn(api::serve(bound, own.shoal.handle.clone(), std::future::pending()));
    test(&own).await;
    serving.abort();
}

#[tokio::test]
async fn networks_secrets_and_configs_are_made_used_and_removed() {
    served(async |own| {
        own.write("key", "hunter2");
        own.write("conf", "a = 1");
        for line in [
            "shoal network create --attachable --label a=b back",
            "shoal network create front",
            "shoal network ls --filter label=a=b",
            "shoal secret create --label a=b key DIR/key",
            "shoal config create conf DIR/conf",
            "shoal secret ls",
            "shoal config inspect --pretty conf",
            "shoal service create -d --name new --network back,alias=db --secret key,target=/k,uid=7,mode=0400 \
             --config conf -p 8080:80 -p 53:53/udp far:1",
        ] {
            own.does(line).await;
        }
        assert_eq!(own.get("/secrets/key").await["Spec"]["Labels"]["a"], "b");
        let spec = own.get("/services/new").await["Spec"].take();
        let task = &spec["TaskTemplate"];
        assert_eq!(task["Networks"][0]["Target"], own.get("/networks/back").await["Id"]);
        assert_eq!(task["Networks"][0]["Aliases"][0], "db");
        assert_eq!(task["ContainerSpec"]["Secrets"][0]["SecretID"], own.get("/secrets/key").await["ID"]);
        assert_eq!(task["ContainerSpec"]["Secrets"][0]["File"]["Mode"], 0o400);
        assert_eq!(task["ContainerSpec"]["Configs"][0]["File"]["Name"], "/conf");
        own.does(
            "shoal service update -d --network-add front --network-rm back --secret-rm key --config-rm conf \
             --publish-rm 80 --endpoint-mode vip new",
        )
        .await;
        let spec = own.get("/services/new").await["Spec"].take();
        let front = own.get("/networks/front").await["Id"].take();
        assert_eq!(names(&spec["TaskTemplate"]["Networks"], "/Target"), [front.as_str().unwrap()]);
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Secrets"], Value::Null);
        assert_eq!(spec["EndpointSpec"]["Ports"].as_array().unwrap().len(), 1);
        own.does("shoal secret rm key").await;
        own.does("shoal config rm conf").await;
        own.does("shoal network rm back").await;
        own.is_refused("shoal service create -d --secret key far:1", "secret key not found").await;
        own.is_refused("shoal network rm back", "network back not found").await;
    })
    .await;
}

#[tokio::test]
async fn a_stack_is_deployed_left_alone_changed_pruned_and_removed() {
    served(async |own| {
        own.write("key.txt", "hunter2");
        own.write("shop.yml", SHOP);
        own.does("shoal stack deploy -c DIR/shop.yml --dry-run shop").await;
        assert_eq!(own.get("/services/shop_web").await["Spec"], Value::Null, "a plan does nothing");
        own.does("shoal stack deploy -c DIR/shop.yml -d shop").await;
        let (web, db) = (own.get("/services/shop_web").await, own.get("/services/shop_db").await);
        let secrets = &web["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"];
        assert_eq!(secrets[0]["SecretID"], own.get("/secrets/shop_key").await["ID"]);
        own.does("shoal stack deploy -c DIR/shop.yml -d shop").await;
        assert_eq!(own.get("/services/shop_web").await, web, "what is as it should be is not written again");

        own.write("key.txt", "other");
        let other = "the secret shop_key is there already with other bytes";
        own.is_refused("shoal stack deploy -c DIR/shop.yml -d shop", other).await;
        own.write("key.txt", "hunter2");
        own.write("shop.yml", &SHOP.replace("a = 1", "a = 2"));
        own.is_refused("shoal stack deploy -c DIR/shop.yml -d shop", "`name: shop_conf-2`").await;

        own.write(
            "shop.yml",
            &SHOP.replace("LEVEL: 3", "LEVEL: 4").replace("key.txt }", "key.txt, labels: { c: d } }"),
        );
        own.does("shoal stack deploy -c DIR/shop.yml -d shop").await;
        let changed = own.get("/services/shop_web").await;
        assert_eq!(changed["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"][0], "LEVEL=4");
        assert_eq!(own.get("/secrets/shop_key").await["Spec"]["Labels"]["c"], "d");
        assert_eq!(own.get("/services/shop_db").await, db);

        own.write("shop.yml", "services: { db: { image: far:1, deploy: { mode: global } } }");
        own.does("shoal stack deploy -c DIR/shop.yml -d shop").await;
        assert_eq!(own.get("/services/shop_web").await, changed);
        // It waits for the services of the file, which want no tasks here.
        own.does("shoal stack deploy -c DIR/shop.yml --prune shop").await;
        assert_eq!(names(&own.get("/networks").await, "/Name"), ["shop_default", "shoal"]);
        for gone in ["/services/shop_web", "/secrets/shop_key", "/configs/shop_conf"] {
            assert_eq!(own.get(gone).await["ID"], Value::Null, "{gone}");
        }
        for line in ["ls", "services shop", "ps shop", "ps none", "rm shop none"] {
            own.does(&format!("shoal stack {line}")).await;
        }
        assert_eq!(own.get("/services/shop_db").await["ID"], Value::Null);
        assert_eq!(names(&own.get("/networks").await, "/Name"), ["shoal"]);
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_others_is_refused_before_anything_is_done() {
    served(async |own| {
        own.write("key.txt", "hunter2");
        own.write("shop.yml", SHOP);
        own.write("key", "x");
        own.does("shoal secret create shop_key DIR/key").await;
        own.is_refused("shoal stack deploy -c DIR/shop.yml -d shop", "belongs to no stack").await;
        assert_eq!(names(&own.get("/networks").await, "/Name"), ["shoal"]);
        own.write(
            "shop.yml",
            "services: { web: { image: far:1, networks: [n] } }\nnetworks: { n: { external: true } }",
        );
        own.is_refused("shoal stack deploy -c DIR/shop.yml -d shop", "shoal network create n").await;
        own.does("shoal network create n").await;
        own.does("shoal stack deploy -c DIR/shop.yml -d shop").await;
        own.is_refused("shoal stack deploy -c DIR/shop.yml -d ../shop", "begin with a letter").await;
    })
    .await;
}
