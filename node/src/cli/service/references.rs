//! How a service's options name networks, secrets and configs.

use std::collections::HashMap;

use bollard::models::NetworkAttachmentConfig;

use super::fields::Fields;
use crate::cli::words::parse_mode;
use crate::compose::FileUse;

/// Reads `NAME`, or `name=NAME,alias=ALIAS,driver-opt=KEY=VALUE`. What shoal does not have is sent on, so that the node
/// that is asked refuses it by its name.
pub(super) fn network(text: &str) -> anyhow::Result<NetworkAttachmentConfig> {
    let fields = Fields::new("--network", text)?;
    let mut network = fields.name().map(str::to_owned);
    let (mut aliases, mut options) = (Vec::new(), HashMap::new());
    for field in fields.each().skip(usize::from(network.is_some())) {
        match field.key.as_str() {
            "name" => network = Some(field.given()?.to_owned()),
            "alias" => aliases.push(field.given()?.to_owned()),
            "driver-opt" => {
                let (key, value) = field.given()?.split_once('=').ok_or_else(|| field.wrong())?;
                options.insert(key.to_owned(), value.to_owned());
            }
            _ => return Err(field.unknown()),
        }
    }
    let network = network.filter(|name| !name.is_empty());
    let network = network.ok_or_else(|| fields.wrong("it names no network, begin with its name"))?;
    Ok(NetworkAttachmentConfig {
        target: Some(network),
        aliases: Some(aliases).filter(|aliases| !aliases.is_empty()),
        driver_opts: Some(options).filter(|options| !options.is_empty()),
    })
}

/// Reads `NAME`, or `source=NAME,target=FILE,uid=ID,gid=ID,mode=0444`; `folder` precedes the name where there is no target.
pub(super) fn file(flag: &'static str, folder: &str, text: &str) -> anyhow::Result<FileUse> {
    let fields = Fields::new(flag, text)?;
    let mut source = fields.name().map(str::to_owned);
    let (mut target, mut uid, mut gid, mut mode) = (None, "0", "0", FileUse::MODE);
    let given: Vec<_> = fields.each().skip(usize::from(source.is_some())).collect();
    for field in &given {
        match field.key.as_str() {
            "source" | "src" => source = Some(field.given()?.to_owned()),
            "target" => target = Some(field.given()?.to_owned()),
            "uid" => uid = field.given()?,
            "gid" => gid = field.given()?,
            "mode" => mode = parse_mode(field.given()?).map_err(|reason| field.because(&reason))?,
            _ => return Err(field.unknown()),
        }
    }
    let name = source.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| fields.wrong("it says of nothing where to put it, begin with its name"))?;
    let target = target.unwrap_or_else(|| format!("{folder}{name}"));
    Ok(FileUse { id: None, name, target, uid: uid.to_owned(), gid: gid.to_owned(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_named_alone_or_with_what_the_service_is_called_there() {
        assert_eq!(network("back").unwrap().target.as_deref(), Some("back"));
        for text in ["back,alias=db,alias=data", "name=back,alias=db,alias=data"] {
            let attachment = network(text).unwrap();
            assert_eq!(attachment.target.as_deref(), Some("back"));
            assert_eq!(attachment.aliases.unwrap(), ["db", "data"]);
        }
        assert_eq!(network("name=b,driver-opt=k=v").unwrap().driver_opts.unwrap()["k"], "v");
        for (wrong, part) in [
            ("alias=db", "begin with its name"),
            ("back,alias", "alias=VALUE"),
            ("back,nope=1", "\"nope\""),
            ("back,driver-opt=k", "not understood"),
        ] {
            let error = network(wrong).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn files_have_dockers_defaults_and_its_fields() {
        let plain = file("--config", "/", "conf").unwrap();
        assert_eq!((plain.target.as_str(), plain.uid.as_str(), plain.mode), ("/conf", "0", 0o444));
        assert_eq!(file("--secret", "", "key").unwrap().target, "key");
        for text in ["source=key,target=/k,uid=7,gid=8,mode=0400", "key,target=/k,uid=7,gid=8,mode=256"] {
            let read = file("--secret", "", text).unwrap();
            assert_eq!((read.name.as_str(), read.target.as_str()), ("key", "/k"));
            assert_eq!((read.uid.as_str(), read.gid.as_str(), read.mode), ("7", "8", 0o400));
        }
        for (wrong, part) in [("target=/k", "its name"), ("key,mode=rw", "file mode"), ("key,owner=1", "\"owner\"")] {
            let error = file("--secret", "", wrong).unwrap_err().to_string();
            assert!(error.contains("--secret") && error.contains(part), "{error}");
        }
    }
}
