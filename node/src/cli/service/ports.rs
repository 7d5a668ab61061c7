//! Ports as Docker's `--publish` takes them.

use bollard::models::EndpointPortConfig;

use super::fields::Fields;
use crate::compose::ports::{self, Short};

/// Reads the values of an option, each in the short or the long form.
pub(super) fn all(flag: &'static str, texts: &[String]) -> anyhow::Result<Vec<EndpointPortConfig>> {
    let mut ports = Vec::new();
    for text in texts {
        if text.contains('=') {
            ports.push(long(flag, text)?);
        } else {
            ports.extend(short(flag, text)?);
        }
    }
    Ok(ports)
}

fn short(flag: &str, text: &str) -> anyhow::Result<Vec<EndpointPortConfig>> {
    let Short { ports, address } = ports::short(text).map_err(|reason| anyhow::anyhow!("{flag} {text}: {reason}"))?;
    if let Some(address) = address {
        anyhow::bail!(
            "{flag} {text}: ports are published on every node, so the address cannot be {address}: leave it out"
        );
    }
    Ok(ports)
}

/// Reads `published=8080,target=80,protocol=tcp,mode=ingress`.
fn long(flag: &'static str, text: &str) -> anyhow::Result<EndpointPortConfig> {
    let fields = Fields::new(flag, text)?;
    let mut port = ports::plain();
    for field in fields.each() {
        let because = |reason: String| field.because(&reason);
        match field.key.as_str() {
            "target" => port.target_port = Some(ports::number(field.given()?).map_err(because)?),
            "published" => port.published_port = Some(ports::number(field.given()?).map_err(because)?),
            "protocol" => port.protocol = Some(ports::protocol(field.given()?).map_err(because)?),
            "mode" => port.publish_mode = Some(ports::mode(field.given()?).map_err(because)?),
            _ => return Err(field.unknown()),
        }
    }
    anyhow::ensure!(port.target_port.is_some(), fields.wrong("it has no target, add target=PORT"));
    Ok(port)
}

/// Tells whether two are the same port of the tasks, wherever they are published.
pub(super) fn is_same(one: &EndpointPortConfig, other: &EndpointPortConfig) -> bool {
    let protocol = |port: &EndpointPortConfig| port.protocol.or(ports::plain().protocol);
    (one.target_port, protocol(one)) == (other.target_port, protocol(other))
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        EndpointPortConfigProtocolEnum as Protocol, EndpointPortConfigPublishModeEnum as PublishMode,
    };

    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<EndpointPortConfig>> {
        all("--publish", &[text.to_owned()])
    }

    #[test]
    fn ports_are_read_in_both_forms() {
        let ports = read("8080-8081:80-81/udp").unwrap();
        let numbers: Vec<_> = ports.iter().map(|port| (port.published_port, port.target_port)).collect();
        assert_eq!(numbers, [(Some(8080), Some(80)), (Some(8081), Some(81))]);
        assert_eq!(ports[0].protocol, Some(Protocol::UDP));
        let port = &read("published=8080,target=80,mode=host").unwrap()[0];
        assert_eq!((port.published_port, port.publish_mode), (Some(8080), Some(PublishMode::HOST)));
        assert!(is_same(port, &read("80").unwrap()[0]) && !is_same(port, &read("80/udp").unwrap()[0]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, part) in [
            ("127.0.0.1:80:80", "leave it out"),
            ("0", "not a port"),
            ("80:80/sctp", "tcp or udp"),
            ("published=80", "add target=PORT"),
            ("target=80,mode=x", "ingress or host"),
            ("target=80,name=x", "\"name\""),
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
