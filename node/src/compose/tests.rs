//! Compose files as people have them, and as they should not.

use std::io;
use std::path::Path;

use bollard::models::{EndpointPortConfigProtocolEnum as Protocol, MountType, ServiceSpec, TaskSpecContainerSpec};

use super::*;

const VOTING_APP: &str = r#"
version: "3.8"
x-logging: &logging
  logging:
    driver: json-file
    options: { max-size: "10m", max-file: "3" }
x-deploy: &deploy
  restart_policy: { condition: on-failure, delay: 5s, max_attempts: 3, window: 120s }
services:
  vote:
    image: "vote:${TAG:-latest}"
    <<: *logging
    command: ["python", "app.py"]
    environment:
      OPTION_A: Cats
      DEBUG: null
      LEVEL: 3
    ports: ["5000:80", "9000-9001:90-91/udp"]
    networks: { front: { aliases: [ballot] } }
    depends_on: [redis]
    deploy:
      <<: *deploy
      replicas: 2
      labels: [shoal.partition=fenced]
      update_config: { parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, max_failure_ratio: 0.1 }
      rollback_config: { parallelism: 1 }
      resources:
        limits: { cpus: '0.50', memory: 50M, pids: 100 }
        reservations: { cpus: 0.25, memory: 20M }
      placement:
        constraints: ["node.labels.disk == ssd"]
        preferences: [{ spread: node.labels.zone }]
        max_replicas_per_node: 1
      endpoint_mode: dnsrr
    healthcheck: { test: curl -f http://localhost, interval: 1m30s, timeout: 10s, retries: 3, start_period: 40s }
  worker:
    image: worker
    env_file: [worker.env]
    entrypoint: sh -c 'exec worker --name "a b"'
    stop_grace_period: 30s
    stop_signal: SIGINT
    init: true
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    ulimits: { nproc: 65535, nofile: { soft: 20000, hard: 40000 } }
    sysctls: { net.core.somaxconn: 1024 }
    extra_hosts: ["somehost:162.242.195.82", "six=::1"]
    security_opt: ["no-new-privileges:true"]
    tmpfs: /run:size=64m,mode=1770
    restart: unless-stopped
    deploy: { mode: global }
  redis:
    image: redis
    volumes:
      - data:/data
      - /etc/hosts:/host:ro
      - { type: tmpfs, target: /scratch, tmpfs: { size: 1g } }
    secrets:
      - key
      - { source: key, target: /run/key, uid: "103", mode: 0440 }
    configs: [{ source: conf, target: /etc/redis.conf }]
networks:
  front: { driver: overlay, attachable: true }
  unused: {}
volumes:
  data: { labels: { keep: "yes" } }
secrets:
  key: { file: ./key.txt }
  other: { external: true }
configs:
  conf: { external: { name: redis-conf-7 } }
"#;

fn surroundings(read: &dyn Fn(&Path, usize) -> io::Result<Vec<u8>>) -> Surroundings<'_> {
    Surroundings { stack: "shop", variables: &|name| (name == "TAG").then(|| "v2".to_owned()), read }
}

fn files(path: &Path, _: usize) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("./key.txt") => Ok(b"hunter2".to_vec()),
        Some("worker.env") => Ok(b"# what it needs\nA=1\nexport B=\"two words\"\nTAG\nGONE\n\n".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn stack(text: &str) -> Result<Stack, ComposeError> {
    read(&[text.to_owned()], &surroundings(&files))
}

fn service(stack: &Stack, name: &str) -> ServiceSpec {
    let found = stack.services.iter().find(|service| service.name.as_deref() == Some(name));
    found.cloned().unwrap_or_else(|| panic!("no service {name}"))
}

fn container(spec: &ServiceSpec) -> TaskSpecContainerSpec {
    spec.task_template.clone().and_then(|task| task.container_spec).unwrap_or_default()
}

#[test]
fn what_a_voting_app_declares_arrives() {
    let stack = stack(VOTING_APP).unwrap();
    let vote = service(&stack, "shop_vote");
    let task = vote.task_template.clone().unwrap();
    assert_eq!(container(&vote).image.as_deref(), Some("vote:v2"));
    assert_eq!(container(&vote).env.unwrap(), ["LEVEL=3", "OPTION_A=Cats"], "DEBUG has no value here");
    assert_eq!(container(&vote).health_check.unwrap().test.unwrap(), ["CMD-SHELL", "curl -f http://localhost"]);
    assert_eq!(vote.mode.clone().unwrap().replicated.unwrap().replicas, Some(2));
    let labels = vote.labels.clone().unwrap();
    assert_eq!(labels["shoal.partition"], "fenced");
    assert_eq!((labels[NAMESPACE_LABEL].as_str(), labels[IMAGE_LABEL].as_str()), ("shop", "vote:v2"));
    let update = vote.update_config.clone().unwrap();
    assert_eq!(
        (update.parallelism, update.delay, update.max_failure_ratio),
        (Some(2), Some(10_000_000_000), Some(0.1))
    );
    let limits = task.resources.unwrap().limits.unwrap();
    assert_eq!((limits.nano_cpus, limits.memory_bytes, limits.pids), (Some(500_000_000), Some(50 << 20), Some(100)));
    assert_eq!(task.restart_policy.unwrap().max_attempts, Some(3));
    assert_eq!(task.log_driver.unwrap().options.unwrap()["max-file"], "3");
    let attached = &task.networks.unwrap()[0];
    assert_eq!(attached.target.as_deref(), Some("shop_front"));
    assert_eq!(attached.aliases.clone().unwrap(), ["vote", "ballot"]);
    let ports = vote.endpoint_spec.unwrap().ports.unwrap();
    let numbers: Vec<_> = ports.iter().map(|port| (port.published_port, port.target_port)).collect();
    assert_eq!(numbers, [(Some(5000), Some(80)), (Some(9000), Some(90)), (Some(9001), Some(91))]);
    assert_eq!(ports[2].protocol, Some(Protocol::UDP));
    assert_eq!(stack.warnings.len(), 1, "{:?}", stack.warnings);
    assert!(stack.warnings[0].starts_with("service vote: `depends_on` is ignored: "));
}

#[test]
fn how_a_process_runs_arrives() {
    let worker = service(&stack(VOTING_APP).unwrap(), "shop_worker");
    let container = container(&worker);
    assert_eq!(container.command.unwrap(), ["sh", "-c", "exec worker --name \"a b\""]);
    assert_eq!(container.env.unwrap(), ["A=1", "B=two words", "TAG=v2"]);
    assert_eq!(container.hosts.unwrap(), ["162.242.195.82 somehost", "::1 six"]);
    assert_eq!(container.stop_grace_period, Some(30_000_000_000));
    assert_eq!(container.privileges.unwrap().no_new_privileges, Some(true));
    let ulimits = container.ulimits.unwrap();
    let nofile = ulimits.iter().find(|ulimit| ulimit.name.as_deref() == Some("nofile")).unwrap();
    assert_eq!((nofile.soft, nofile.hard), (Some(20_000), Some(40_000)));
    assert!(worker.mode.unwrap().global.is_some());
    let tmpfs = container.mounts.unwrap()[0].tmpfs_options.clone().unwrap();
    assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(64 << 20), Some(0o1770)));
}

#[test]
fn volumes_secrets_and_configs_have_the_names_of_the_shoal() {
    let stack = stack(VOTING_APP).unwrap();
    let container = container(&service(&stack, "shop_redis"));
    let mounts = container.mounts.unwrap();
    assert_eq!((mounts[0].typ, mounts[0].source.as_deref()), (Some(MountType::VOLUME), Some("shop_data")));
    assert_eq!(mounts[0].volume_options.clone().unwrap().labels.unwrap()["keep"], "yes");
    assert_eq!((mounts[1].typ, mounts[1].read_only), (Some(MountType::BIND), Some(true)));
    assert_eq!(mounts[2].tmpfs_options.clone().unwrap().size_bytes, Some(1 << 30));
    let secrets = container.secrets.unwrap();
    let file = secrets[1].file.clone().unwrap();
    assert_eq!(
        (secrets[0].secret_name.as_deref(), file.mode, file.uid.as_deref()),
        (Some("shop_key"), Some(0o440), Some("103"))
    );
    assert_eq!(container.configs.unwrap()[0].config_name.as_deref(), Some("redis-conf-7"));
    assert_eq!(stack.secrets.len(), 1, "`other` is used by nobody");
    assert_eq!(stack.secrets[0].data.as_deref(), Some(&b"hunter2"[..]));
    assert!(!format!("{:?}", stack.secrets).contains("hunter2"), "a secret shows in debugging output");
    assert_eq!(stack.configs[0].data, None);
    let networks: Vec<&str> = stack.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(networks, ["shop_default", "shop_front"], "only what is used");
}

#[test]
fn a_later_file_lies_over_an_earlier_one() {
    let first = "services: { web: { image: a, ports: ['80:80'], environment: { A: 1, B: 2 } } }";
    let second = "services: { web: { image: b, ports: ['81:81'], environment: { B: 3 } } }";
    let stack = read(&[first.to_owned(), second.to_owned()], &surroundings(&files)).unwrap();
    let web = service(&stack, "shop_web");
    assert_eq!(container(&web).image.as_deref(), Some("b"));
    assert_eq!(container(&web).env.unwrap(), ["A=1", "B=3"]);
    assert_eq!(web.endpoint_spec.unwrap().ports.unwrap().len(), 2);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, part) in [
        ("services: { web: { image: a, privileged: true } }", "services.web.privileged: is not supported"),
        (
            "services: { web: { image: a, deploy: { replicas: many } } }",
            "services.web.deploy.replicas: expected a whole number",
        ),
        ("services: { web: { image: a, deploy: { replicas: -1 } } }", "not negative"),
        ("services: { web: { build: . } }", "services.web: has no image"),
        ("services: { web: { image: a, ports: ['x:80'] } }", "services.web.ports[0]: \"x\" is not a port"),
        ("services: { web: { image: a, ports: ['1-2:1-3'] } }", "differ in length"),
        ("services: { web: { image: a, volumes: ['./here:/x'] } }", "must be absolute"),
        ("services: { web: { image: a, volumes: ['data:/x'] } }", "\"data\" is not declared"),
        ("services: { web: { image: a, secrets: [none] } }", "services.web.secrets[0]: \"none\" is not declared"),
        ("services: { web: { image: a, networks: [none] } }", "services.web.networks[0]: the network \"none\""),
        ("services: { web: { image: a, healthcheck: { interval: soon } } }", "\"soon\" is not a duration"),
        ("services: { web: { image: a, command: \"sh 'x\" } }", "has a quote that does not end"),
        (
            "services: { web: { image: '${IMAGE:?say which}' } }",
            "services.web.image: the variable IMAGE is required: say which",
        ),
        ("services: { web: { image: a, deploy: { mode: global, replicas: 2 } } }", "remove `replicas`"),
        ("services: { web: { image: a, extends: { service: b } } }", "services.web.extends: is not supported"),
        ("secrets: { a: { file: gone } }\nservices: {}", "secrets.a.file: cannot read gone"),
        ("include: [other.yml]", "give each file with -c"),
        ("{}", "declares no services"),
        ("services: [", "not a valid YAML file"),
        ("services: { web: { image: a }, web: { image: b } }", "duplicate"),
    ] {
        let error = stack(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}\n  said: {error}\n  not:  {part}");
    }
}

#[test]
fn a_file_that_grows_without_end_is_refused() {
    let mut text = String::from("x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("x-{level}: &a{level} [{before}]\n"));
    }
    assert!(matches!(stack(&text), Err(ComposeError::Yaml(_))));
    let deep = format!("x-a: {}1{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(matches!(stack(&deep), Err(ComposeError::Yaml(_))));
}
