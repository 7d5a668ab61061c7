//! Users: turns an image's `USER` into numbers, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! Input: the text of the two files, which is the image's and therefore hostile. Output: uid, gid and further groups.
//! The forms and defaults are Docker's: `""`, `user`, `user:group`, each a name or a number.

/// Numbers a process runs under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Most supplementary groups taken from an image; the kernel's own limit is higher.
const GROUPS_MAX: usize = 256;

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `user` within an image's own files. The error is a sentence for the operator.
pub(super) fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user_part)
        .or_else(|| passwd_entries(passwd).find(|entry| number(user_part) == Some(entry.uid)));
    let uid = match (&entry, number(user_part)) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(format!("unable to find user {user_part}: no matching entries in passwd file")),
    };
    if !group_part.is_empty() {
        let named = group_entries(group).find(|entry| entry.name == group_part).map(|entry| entry.gid);
        let gid = named
            .or_else(|| number(group_part))
            .ok_or_else(|| format!("unable to find group {group_part}: no matching entries in group file"))?;
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let groups = match &entry {
        Some(entry) => group_entries(group)
            .filter(|line| line.gid != gid && line.members.split(',').any(|member| member == entry.name))
            .map(|line| line.gid)
            .take(GROUPS_MAX)
            .collect(),
        None => Vec::new(),
    };
    Ok(User { uid, gid, groups })
}

/// Resolves further groups, each a name or a number, and adds them to a user's.
pub(super) fn add_groups(user: &mut User, names: &[String], group: &str) -> Result<(), String> {
    for name in names {
        let named = group_entries(group).find(|entry| entry.name == name).map(|entry| entry.gid);
        let gid = named
            .or_else(|| number(name))
            .ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(())
}

/// User and group ids end below the kernel's "no such id".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        Some(PasswdEntry { name, uid, gid: number(fields.next()?)? })
    })
}

fn group_entries(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:44::/:/bin/sh\n1000:x:7:7::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:web\nlogs:x:55:other,web\nbroken:x:\n";

    fn resolved(user: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve(user, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups))
    }

    #[test]
    fn each_form_of_user_resolves_as_docker_does() {
        assert_eq!(resolved(""), Ok((0, 0, vec![])));
        assert_eq!(resolved("web"), Ok((33, 44, vec![55])));
        assert_eq!(resolved("33"), Ok((33, 44, vec![55])));
        assert_eq!(resolved("web:logs"), Ok((33, 55, vec![])));
        assert_eq!(resolved("web:9"), Ok((33, 9, vec![])));
        assert_eq!(resolved("4242"), Ok((4242, 0, vec![])));
        assert_eq!(resolved("4242:4243"), Ok((4242, 4243, vec![])));
        assert_eq!(resolved(":www"), Ok((0, 44, vec![])));
        assert_eq!(resolved("1000"), Ok((7, 7, vec![])), "a name of digits wins over the number");
    }

    #[test]
    fn an_unknown_user_or_group_is_named_in_the_error() {
        assert!(resolved("nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(resolved("web:nope").unwrap_err().contains("unable to find group nope"));
        assert!(resolved("-1").is_err());
        assert!(resolved("4294967295").is_err());
    }
}
