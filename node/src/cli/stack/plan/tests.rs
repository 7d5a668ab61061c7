//! Stacks against what is there.

use bollard::models::{
    ObjectVersion, SecretSpec, Service, ServiceUpdateStatus, TaskSpecContainerSpec, TaskSpecContainerSpecSecrets,
};

use super::*;
use crate::cli::data;
use crate::compose::{NAMESPACE_LABEL, Surroundings, read};

const SHOP: &str = r#"
services:
  web:
    image: web:1
    networks: { front: { aliases: [www] } }
    secrets: [key]
    configs: [conf]
    ports: ["8080:80"]
    environment: { LEVEL: 3 }
    deploy: { replicas: 2 }
  db: { image: db }
networks: { front: {}, unused: {} }
secrets: { key: { content: hunter2 }, spare: { content: unused } }
configs: { conf: { content: "a = 1" } }
"#;

fn stack(text: &str) -> Stack {
    let surroundings = Surroundings {
        stack: "shop",
        variables: &|_| None,
        read: &|_, _| Err(std::io::Error::other("there are no files")),
    };
    read(&[text.to_owned()], &surroundings).unwrap()
}

fn plan(text: &str, present: &Present) -> anyhow::Result<Vec<Step>> {
    deploy(&stack(text), "shop", present, Choices::default())
}

/// Returns the steps as they are printed, with single spaces.
fn lines(steps: &[Step]) -> Vec<String> {
    let words = |step: &Step| step.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    steps.iter().map(words).collect()
}

fn refusal(text: &str, present: &Present) -> String {
    plan(text, present).unwrap_err().to_string()
}

fn labels(stack: &str) -> HashMap<String, String> {
    HashMap::from([(NAMESPACE_LABEL.to_owned(), stack.to_owned())])
}

fn version() -> Option<ObjectVersion> {
    Some(ObjectVersion { index: Some(4) })
}

fn network(name: &str, labels: HashMap<String, String>) -> bollard::models::Network {
    bollard::models::Network {
        name: Some(name.to_owned()),
        id: Some(format!("id-of-{name}")),
        labels: Some(labels),
        ..Default::default()
    }
}

/// Returns a secret or config as the node shows it: of configs with their bytes.
fn shown(name: &str, bytes: Option<&str>, labels: HashMap<String, String>) -> Secret {
    let spec = data::spec(name.to_owned(), bytes.unwrap_or_default().as_bytes());
    let data = spec.data.clone().filter(|_| bytes.is_some());
    Secret {
        id: Some(format!("id-of-{name}")),
        version: version(),
        spec: Some(SecretSpec { labels: Some(labels), data, ..spec }),
        ..Default::default()
    }
}

/// Returns a service as the node shows it: with ids, a pinned image, and defaults.
fn running(spec: &ServiceSpec) -> Service {
    let mut spec = spec.clone();
    let name = spec.name.clone().unwrap();
    identify(&mut spec, |_, name| Some(format!("id-of-{name}")));
    let task = spec.task_template.as_mut().unwrap();
    for attachment in task.networks.iter_mut().flatten() {
        attachment.target = attachment.target.as_ref().map(|name| format!("id-of-{name}"));
    }
    task.force_update = Some(3);
    task.runtime = Some("container".to_owned());
    let container = task.container_spec.as_mut().unwrap();
    container.image = container.image.as_ref().map(|image| format!("{image}@sha256:77"));
    container.stop_grace_period = Some(10_000_000_000);
    Service { id: Some(format!("id-of-{name}")), version: version(), spec: Some(spec), ..Default::default() }
}

/// Returns what is there once a file was deployed.
fn deployed(text: &str) -> Present {
    let stack = stack(text);
    let networks = stack.networks.iter().map(|declared| network(&declared.name, declared.labels.clone()));
    let secrets = stack.secrets.iter().map(|blob| shown(&blob.name, None, blob.labels.clone()));
    let config = |blob: &Blob| {
        let bytes = String::from_utf8(blob.data.clone().unwrap_or_default()).unwrap();
        shown(&blob.name, Some(&bytes), blob.labels.clone())
    };
    let configs = stack.configs.iter().map(config);
    Present::new(networks.collect(), secrets.collect(), configs.collect(), stack.services.iter().map(running).collect())
}

fn container(step: &Step) -> TaskSpecContainerSpec {
    let (Deed::CreateService(spec) | Deed::UpdateService { spec, .. }) = &step.deed else { panic!("{step}") };
    spec.task_template.clone().unwrap().container_spec.unwrap()
}

#[test]
fn what_is_not_there_is_made_in_the_order_in_which_it_is_needed() {
    let steps = plan(SHOP, &Present::default()).unwrap();
    assert_eq!(
        lines(&steps),
        [
            "create network shop_default",
            "create network shop_front",
            "create secret shop_key",
            "create config shop_conf",
            "create service shop_db",
            "create service shop_web",
        ]
    );
    let given: Vec<TaskSpecContainerSpecSecrets> = container(&steps[5]).secrets.unwrap();
    assert_eq!((given[0].secret_id.as_deref(), given[0].secret_name.as_deref()), (None, Some("shop_key")));
    assert_eq!(super::super::step::summary(&steps), "6 to create, 0 to update, 0 to leave, 0 to remove");
    assert!(!format!("{steps:?}").contains("hunter2"), "a secret shows in debugging output");
}

#[test]
fn a_stack_that_is_there_is_left_alone() {
    let steps = plan(SHOP, &deployed(SHOP)).unwrap();
    assert!(steps.iter().all(|step| step.deed.word() == "leave"), "{:?}", lines(&steps));
    assert_eq!(steps.len(), 6);
    // The node alone can compare them.
    assert!(matches!(&steps[2].deed, Deed::CompareData { version: 4, .. }));
    assert!(matches!(&steps[3].deed, Deed::Leave { .. }));
}

#[test]
fn a_service_that_differs_is_updated_and_keeps_what_its_file_says_nothing_of() {
    let changed = SHOP.replace("LEVEL: 3", "LEVEL: 4").replace("replicas: 2", "replicas: 0");
    let steps = plan(&changed, &deployed(SHOP)).unwrap();
    let web = steps.last().unwrap();
    assert_eq!(
        lines(&steps).last().unwrap(),
        "update service shop_web (Mode.Replicated.Replicas, TaskTemplate.ContainerSpec.Env)"
    );
    let Deed::UpdateService { id, version: 4, spec } = &web.deed else { panic!("{web}") };
    assert_eq!((id.as_str(), spec.task_template.as_ref().unwrap().force_update), ("id-of-shop_web", Some(3)));
    assert_eq!(container(web).image.as_deref(), Some("web:1@sha256:77"), "the name means what it meant");
    assert_eq!(container(web).secrets.unwrap()[0].secret_id.as_deref(), Some("id-of-shop_key"));
    assert_eq!(lines(&steps)[4], "leave service shop_db");
}

#[test]
fn an_image_is_looked_for_again_if_its_name_differs_or_if_that_is_asked_for() {
    let steps = plan(&SHOP.replace("web:1", "web:2"), &deployed(SHOP)).unwrap();
    assert_eq!(container(&steps[5]).image.as_deref(), Some("web:2"));
    let choices = Choices { repin: true, ..Choices::default() };
    let steps = deploy(&stack(SHOP), "shop", &deployed(SHOP), choices).unwrap();
    assert_eq!(container(&steps[5]).image.as_deref(), Some("web:1"));
}

#[test]
fn an_update_that_did_not_go_through_is_asked_for_again() {
    let db = "services: { db: { image: db } }";
    for (state, line) in [
        (UpdateState::PAUSED, "update service shop_db (its last update did not go through)"),
        (UpdateState::ROLLBACK_COMPLETED, "update service shop_db (its last update did not go through)"),
        (UpdateState::UPDATING, "leave service shop_db"),
        (UpdateState::COMPLETED, "leave service shop_db"),
    ] {
        let mut service = running(&stack(db).services[0]);
        service.update_status = Some(ServiceUpdateStatus { state: Some(state), ..Default::default() });
        let networks = vec![network("shop_default", labels("shop"))];
        let present = Present::new(networks, Vec::new(), Vec::new(), vec![service]);
        assert_eq!(lines(&plan(db, &present).unwrap()), ["leave network shop_default", line]);
    }
}

#[test]
fn only_labels_of_secrets_and_configs_change() {
    let labelled = SHOP.replace("{ content: hunter2 }", "{ content: other, labels: { a: b } }");
    let steps = plan(&labelled, &deployed(SHOP)).unwrap();
    assert_eq!(lines(&steps)[2], "update secret shop_key (labels)");
    let Deed::LabelData { version: 4, blob, .. } = &steps[2].deed else { panic!("{}", steps[2]) };
    assert_eq!((blob.labels["a"].as_str(), blob.labels[NAMESPACE_LABEL].as_str()), ("b", "shop"));
    let error = refusal(&SHOP.replace("a = 1", "a = 2"), &deployed(SHOP));
    assert!(error.contains("the config shop_conf") && error.contains("`name: shop_conf-2`"), "{error}");
}

#[test]
fn what_is_no_longer_declared_stays_unless_it_is_to_be_pruned() {
    let less = "services: { db: { image: db } }";
    let steps = plan(less, &deployed(SHOP)).unwrap();
    assert!(steps[2..].iter().all(|step| step.deed == Deed::Spare), "nobody waits for it");
    let left = "(not in the files, --prune removes it)";
    assert_eq!(
        lines(&steps)[2..],
        [
            format!("leave service shop_web {left}"),
            format!("leave secret shop_key {left}"),
            format!("leave config shop_conf {left}"),
            format!("leave network shop_front {left}"),
        ]
    );
    let choices = Choices { prune: true, ..Choices::default() };
    let steps = deploy(&stack(less), "shop", &deployed(SHOP), choices).unwrap();
    let gone = ["service shop_web", "secret shop_key", "config shop_conf", "network shop_front"];
    assert_eq!(lines(&steps)[2..], gone.map(|what| format!("remove {what}")));
    assert_eq!(steps[2].deed, Deed::Remove { id: "id-of-shop_web".to_owned() });
    let external = "services: { db: { image: db, secrets: [key] } }\n\
                    secrets: { key: { external: true, name: shop_key } }";
    let steps = deploy(&stack(external), "shop", &deployed(SHOP), choices).unwrap();
    assert!(steps.iter().all(|step| step.name != "shop_key"), "what is external is kept, whatever its labels say");
}

#[test]
fn a_stack_is_removed_from_its_services_to_its_networks_and_nothing_else_is() {
    let mut present = deployed(SHOP);
    present.networks.insert("other_front".to_owned(), network("other_front", labels("other")));
    present.networks.insert("plain".to_owned(), network("plain", HashMap::new()));
    let steps = removal(&present, "shop");
    assert_eq!(
        lines(&steps),
        [
            "remove service shop_db",
            "remove service shop_web",
            "remove secret shop_key",
            "remove config shop_conf",
            "remove network shop_default",
            "remove network shop_front",
        ]
    );
    assert_eq!(removal(&present, "none"), []);
}

#[test]
fn what_is_external_must_be_there_and_is_not_touched() {
    let text = "services: { web: { image: a, networks: [n], secrets: [s], configs: [c] } }\n\
                networks: { n: { external: true, name: back } }\n\
                secrets: { s: { external: true } }\nconfigs: { c: { external: { name: conf } } }";
    let none = HashMap::new;
    let (back, key, conf) =
        (network("back", none()), shown("s", None, none()), shown("conf", Some("x"), labels("other")));
    let present = |networks: &[_], secrets: &[_], configs: &[_]| {
        Present::new(networks.to_vec(), secrets.to_vec(), configs.to_vec(), Vec::new())
    };
    let (networks, secrets, configs) = ([back], [key], [conf]);
    let steps = plan(text, &present(&networks, &secrets, &configs)).unwrap();
    assert_eq!(lines(&steps), ["create service shop_web"]);
    assert_eq!(container(&steps[0]).configs.unwrap()[0].config_id.as_deref(), Some("id-of-conf"));
    for (present, part) in [
        (present(&[], &secrets, &configs), "make it with `shoal network create back`"),
        (present(&networks, &[], &configs), "make it with `shoal secret create s FILE`"),
        (present(&networks, &secrets, &[]), "make it with `shoal config create conf FILE`"),
    ] {
        let error = refusal(text, &present);
        assert!(error.contains("external") && error.contains(part), "{error}");
    }
}

#[test]
fn what_belongs_to_others_is_refused() {
    let service = |labels| {
        let spec = ServiceSpec { name: Some("Shop_db".to_owned()), labels: Some(labels), ..Default::default() };
        Present::new(Vec::new(), Vec::new(), Vec::new(), vec![Service { spec: Some(spec), ..Default::default() }])
    };
    let network = Present::new(vec![network("shop_front", labels("other"))], Vec::new(), Vec::new(), Vec::new());
    let secret = vec![shown("shop_key", None, HashMap::new())];
    for (present, parts) in [
        (network, ["the network shop_front", "belongs to the stack other"]),
        (Present::new(Vec::new(), secret, Vec::new(), Vec::new()), ["the secret shop_key", "belongs to no stack"]),
        (service(labels("other")), ["the service shop_db", "shoal service rm"]),
        (service(HashMap::new()), ["the service shop_db", "belongs to no stack"]),
    ] {
        let error = refusal(SHOP, &present);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_network_that_differs_is_left_and_that_is_said() {
    let internal = SHOP.replace("front: {}, unused", "front: { internal: true }, unused");
    let steps = plan(&internal, &deployed(SHOP)).unwrap();
    assert_eq!(
        lines(&steps)[1],
        "leave network shop_front (differs in internal, but networks cannot be changed: remove it first)"
    );
}
