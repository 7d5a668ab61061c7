//! Interpolation: `$NAME` and `${NAME…}` in values, as Docker reads them.
//!
//! `${NAME:-other}` and `${NAME-other}` (if it is empty or unset; if it is unset), `${NAME:?why}` and `${NAME?why}`
//! (refused then), `${NAME:+other}` and `${NAME+other}` (if it is not). The other part may hold variables too. `$$` is a
//! dollar. Keys are left as they are.

use serde_json::Value;

use super::tree::ComposeError;

/// How deep the other part of a variable may hold variables.
const DEPTH_MAX: usize = 8;
/// Longest value in bytes after interpolation.
const VALUE_BYTES_MAX: usize = 1 << 20;

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in all values below.
pub(super) fn values(value: &mut Value, path: &str, variables: Variables<'_>) -> Result<(), ComposeError> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) if text.contains('$') => {
            let replaced = replace(text, variables, 0);
            *text = replaced.map_err(|reason| ComposeError::Value { path: path.to_owned(), reason })?;
            Ok(())
        }
        Value::String(_) => Ok(()),
        Value::Array(list) => {
            let mut items = list.iter_mut().enumerate();
            items.try_for_each(|(index, item)| values(item, &format!("{path}[{index}]"), variables))
        }
        Value::Object(map) => map.iter_mut().try_for_each(|(key, item)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            values(item, &path, variables)
        }),
    }
}

/// Returns `text` with its variables replaced, or what is wrong with it.
fn replace(text: &str, variables: Variables<'_>, depth: usize) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err(format!("variables are nested more than {DEPTH_MAX} deep"));
    }
    let (mut rest, mut replaced) = (text, String::new());
    while let Some(at) = rest.find('$') {
        replaced.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            replaced.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let end = closing(tail).ok_or_else(|| format!("${{{tail} has no closing brace"))?;
            replaced.push_str(&braced(&tail[..end], variables, depth)?);
            rest = &tail[end + 1..];
        } else {
            let end = name_end(rest);
            if end == 0 {
                return Err(format!("a single $ before {rest:?}: write $$ for a dollar"));
            }
            replaced.push_str(&variables(&rest[..end]).unwrap_or_default());
            rest = &rest[end..];
        }
        if replaced.len() > VALUE_BYTES_MAX {
            return Err(format!("the value has more than {VALUE_BYTES_MAX} bytes with its variables"));
        }
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// Returns what stands for the inside of `${…}`.
fn braced(inside: &str, variables: Variables<'_>, depth: usize) -> Result<String, String> {
    let (name, operation) = inside.split_at(name_end(inside));
    if name.is_empty() {
        return Err(format!("${{{inside}}} names no variable"));
    }
    let colon = operation.starts_with(':');
    let value = variables(name);
    // With a colon, an empty variable counts as unset.
    let set = value.filter(|value| !(colon && value.is_empty()));
    let mut other = operation.trim_start_matches(':').chars();
    let operator = other.next();
    let other = other.as_str();
    match operator {
        None if colon => Err(format!("${{{inside}}} has nothing after its colon")),
        None => Ok(set.unwrap_or_default()),
        Some('-') => set.map_or_else(|| replace(other, variables, depth + 1), Ok),
        Some('+') => set.map_or_else(|| Ok(String::new()), |_| replace(other, variables, depth + 1)),
        Some('?') => set.map_or_else(
            || {
                let why = replace(other, variables, depth + 1)?;
                let why = if why.is_empty() { "it has no value here".to_owned() } else { why };
                Err(format!("the variable {name} is required: {why}"))
            },
            Ok,
        ),
        Some(_) => {
            Err(format!("${{{inside}}} is no form of a variable: expected ${{NAME}}, ${{NAME:-default}} or the like"))
        }
    }
}

/// Returns where the brace that opened before `text` closes.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = character;
    }
    None
}

fn name_end(text: &str) -> usize {
    let is_name = |(at, character): (usize, char)| {
        character == '_' || character.is_ascii_alphabetic() || (at > 0 && character.is_ascii_digit())
    };
    text.char_indices().find(|(at, character)| !is_name((*at, *character))).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "TAG" => Some("2".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn every_form_of_a_variable() {
        for (text, expected) in [
            ("web:$TAG", "web:2"),
            ("web:${TAG}", "web:2"),
            ("${NONE}", ""),
            ("${NONE:-1}", "1"),
            ("${EMPTY:-1}", "1"),
            ("${EMPTY-1}", ""),
            ("${NONE-1}", "1"),
            ("${TAG:+set}${EMPTY:+set}${EMPTY+set}", "setset"),
            ("${NONE:-${TAG:-3}-x}", "2-x"),
            ("${TAG:?needed}", "2"),
            ("$$TAG costs $$5", "$TAG costs $5"),
            ("${NONE:-{}}", "{}"),
        ] {
            let expected = if text == "${NONE:-{}}" { "{}" } else { expected };
            assert_eq!(replace(text, &variables, 0).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_variable_is_said() {
        for (text, part) in [
            ("${NONE:?say which}", "the variable NONE is required: say which"),
            ("${EMPTY:?}", "the variable EMPTY is required: it has no value here"),
            ("${TAG", "has no closing brace"),
            ("${}", "names no variable"),
            ("cost $ 5", "write $$ for a dollar"),
            ("${TAG/x}", "is no form of a variable"),
        ] {
            let error = replace(text, &variables, 0).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let text = format!("{}x{}", "${NONE:-".repeat(20), "}".repeat(20));
        assert!(replace(&text, &variables, 0).unwrap_err().contains("nested"));
    }
}
