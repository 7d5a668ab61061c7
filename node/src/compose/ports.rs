//! Published ports, in their short and long forms.

use bollard::models::{EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum};

use super::tree::{At, ComposeError, wrong};

/// Most ports that one range may stand for.
const RANGE_MAX: usize = 1_000;

/// Returns the ports of one item of a service's `ports`.
pub(super) fn read(at: &At<'_>, warnings: &mut Vec<String>) -> Result<Vec<EndpointPortConfig>, ComposeError> {
    if at.is_map() { Ok(vec![long(at)?]) } else { short(at, warnings) }
}

/// Reads `[[ADDRESS:]PUBLISHED[-LAST]:]TARGET[-LAST][/PROTOCOL]`.
fn short(at: &At<'_>, warnings: &mut Vec<String>) -> Result<Vec<EndpointPortConfig>, ComposeError> {
    let text = at.text()?;
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let protocol = self::protocol(at, protocol)?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, ports),
    };
    let published = published.map(|published| match published.rsplit_once(':') {
        Some((address, published)) => {
            warnings
                .push(format!("the address {address} of the port {text} is ignored: it is published on every node"));
            published
        }
        None => published,
    });
    let targets = range(at, target)?;
    let publisheds = published.filter(|published| !published.is_empty()).map(|text| range(at, text)).transpose()?;
    if publisheds.as_ref().is_some_and(|publisheds| publisheds.len() != targets.len()) {
        return Err(wrong(at, "the ranges of published and target ports differ in length"));
    }
    let port = |(index, target): (usize, i64)| EndpointPortConfig {
        name: None,
        protocol: Some(protocol),
        target_port: Some(target),
        published_port: publisheds.as_ref().map(|publisheds| publisheds[index]),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
    };
    Ok(targets.iter().copied().enumerate().map(port).collect())
}

fn long(at: &At<'_>) -> Result<EndpointPortConfig, ComposeError> {
    let mut port = EndpointPortConfig {
        name: None,
        protocol: Some(EndpointPortConfigProtocolEnum::TCP),
        target_port: None,
        published_port: None,
        publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
    };
    for (key, at) in at.entries()? {
        match key {
            "target" => port.target_port = Some(number(&at, &at.text()?)?),
            "published" => port.published_port = Some(number(&at, &at.text()?)?),
            "protocol" => port.protocol = Some(protocol(&at, &at.text()?)?),
            "mode" => {
                port.publish_mode = Some(match at.text()?.as_str() {
                    "ingress" => EndpointPortConfigPublishModeEnum::INGRESS,
                    "host" => EndpointPortConfigPublishModeEnum::HOST,
                    other => return Err(wrong(&at, format!("{other:?} is not supported: ingress or host"))),
                });
            }
            "name" => port.name = Some(at.text()?),
            // Tells other programs what is spoken there.
            "app_protocol" => {}
            _ => return Err(at.unknown()),
        }
    }
    if port.target_port.is_none() {
        return Err(wrong(at, "expected a key `target`"));
    }
    Ok(port)
}

fn protocol(at: &At<'_>, word: &str) -> Result<EndpointPortConfigProtocolEnum, ComposeError> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(EndpointPortConfigProtocolEnum::TCP),
        "udp" => Ok(EndpointPortConfigProtocolEnum::UDP),
        _ => Err(wrong(at, format!("the protocol {word:?} is not supported: tcp or udp"))),
    }
}

fn range(at: &At<'_>, text: &str) -> Result<Vec<i64>, ComposeError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(at, first)?, number(at, last)?);
    let ports: Vec<i64> = (first..=last).take(RANGE_MAX + 1).collect();
    match ports.len() {
        0 => Err(wrong(at, format!("the range {text} is empty"))),
        count if count > RANGE_MAX => Err(wrong(at, format!("the range {text} has more than {RANGE_MAX} ports"))),
        _ => Ok(ports),
    }
}

fn number(at: &At<'_>, text: &str) -> Result<i64, ComposeError> {
    let port: Option<u16> = text.parse().ok().filter(|port| *port > 0);
    port.map(i64::from).ok_or_else(|| wrong(at, format!("{text:?} is not a port, expected 1 to 65535")))
}
