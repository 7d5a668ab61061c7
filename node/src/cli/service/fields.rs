//! Lists of fields, as in `--mount type=bind,source=/data,target=/data`.

use anyhow::Context;

/// The value of one option: fields between commas.
pub(super) struct Fields<'a> {
    flag: &'static str,
    text: &'a str,
    fields: Vec<String>,
}

/// One field: `key=value`, or a word alone.
pub(super) struct Field<'a> {
    of: &'a Fields<'a>,
    text: &'a str,
    /// What is before the equals sign, in lower case, or the word.
    pub(super) key: String,
    value: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Splits the value of an option at its commas, but for those in double quotes.
    pub(super) fn new(flag: &'static str, text: &'a str) -> anyhow::Result<Self> {
        let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
        for character in text.chars() {
            match character {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(std::mem::take(&mut field)),
                other => field.push(other),
            }
        }
        anyhow::ensure!(!quoted, "{flag} {text}: a quote is not closed");
        fields.push(field);
        Ok(Self { flag, text, fields })
    }

    /// Returns the first field if it is a word alone: the name of what the others say more about.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.first().map(String::as_str).filter(|field| !field.is_empty() && !field.contains('='))
    }

    /// Returns the fields in order.
    pub(super) fn each(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|text| {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
            Field { of: self, text, key: key.to_ascii_lowercase(), value }
        })
    }

    /// Returns the complaint that the whole is wrong.
    pub(super) fn wrong(&self, reason: &str) -> anyhow::Error {
        anyhow::anyhow!("{} {}: {reason}", self.flag, self.text)
    }
}

impl<'a> Field<'a> {
    /// Returns the value, which must be there.
    pub(super) fn given(&self) -> anyhow::Result<&'a str> {
        let Fields { flag, text, .. } = self.of;
        self.value.with_context(|| format!("{flag} {text}: {0} has no value, write {0}=VALUE", self.key))
    }

    /// Returns whether it is switched on: a word alone says so.
    pub(super) fn flag(&self) -> anyhow::Result<bool> {
        self.value.unwrap_or("true").parse().map_err(|_| self.wrong())
    }

    /// Returns the complaint that this field is not understood.
    pub(super) fn wrong(&self) -> anyhow::Error {
        self.of.wrong(&format!("{:?} is not understood", self.text))
    }

    /// Returns the complaint that there is no such option.
    pub(super) fn unknown(&self) -> anyhow::Error {
        self.of.wrong(&format!("there is no option {:?}", self.key))
    }

    /// Returns a complaint about the field.
    pub(super) fn because(&self, reason: &str) -> anyhow::Error {
        self.of.wrong(reason)
    }
}
