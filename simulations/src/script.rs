//! Scripts: a run as a file. A scenario is written by hand and may leave operators' commands to the seed; a recording
//! holds every step, so that it repeats a run even after the drawing of steps has changed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::schedule;
use crate::step::{Step, Timed};

/// Everything that decides a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Script {
    /// What it shows, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Whether the seed draws more steps: commands, and those of the faults that are on.
    #[serde(default)]
    pub draw: bool,
    /// The options.
    pub options: Options,
    /// The steps of the safety phase, in order of time.
    #[serde(default)]
    pub steps: Vec<Timed>,
}

/// A script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read or written.
    #[error("{}: cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a script.
    #[error("{} is not a script: {reason}; see simulations/plans/ for examples", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

/// Most nodes that one world may have.
pub const NODES_MAX: usize = 2_000;

impl Script {
    /// Returns what these options draw, every step included.
    pub fn drawn(options: Options) -> Self {
        Self { about: String::new(), draw: true, options, steps: Vec::new() }.spelled_out()
    }

    /// Adds the steps that the seed draws, if it is to.
    pub fn spelled_out(mut self) -> Self {
        if self.draw {
            self.steps.extend(schedule::draw(&self.options));
            self.draw = false;
        }
        self.steps.sort_by_key(|timed| timed.at_ms);
        self
    }

    /// Reads a script.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScriptError::File { path: path.to_path_buf(), source })?;
        let malformed = |reason: String| ScriptError::Malformed { path: path.to_path_buf(), reason };
        let script: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if !(1..=NODES_MAX).contains(&script.options.nodes) || script.options.pace == 0 {
            return Err(malformed(format!("nodes must be 1 to {NODES_MAX}, and pace at least 1")));
        }
        Ok(script.spelled_out())
    }

    /// Writes the script.
    pub fn write(&self, path: &Path) -> Result<(), ScriptError> {
        let text = toml::to_string(self)
            .map_err(|error| ScriptError::Malformed { path: path.to_path_buf(), reason: error.to_string() })?;
        std::fs::write(path, text).map_err(|source| ScriptError::File { path: path.to_path_buf(), source })
    }

    /// Returns every script in a folder, in order of name.
    pub fn folder(path: &Path) -> Result<Vec<(PathBuf, Self)>, ScriptError> {
        let failed = |source| ScriptError::File { path: path.to_path_buf(), source };
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files.into_iter().map(|file| Self::read(&file).map(|script| (file, script))).collect()
    }

    /// Returns the steps without their times.
    pub(crate) fn bare_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().map(|timed| &timed.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Fault;

    #[test]
    fn what_is_drawn_survives_a_file() {
        let mut options = Options::draw(3, 7);
        options.faults = Fault::all().iter().copied().collect();
        let script = Script::drawn(options);
        let text = toml::to_string(&script).expect("a script is TOML");
        let again: Script = toml::from_str(&text).expect("what was written is read");
        assert_eq!(again.steps, script.steps);
        assert!(script.steps.len() > 100);
        assert_eq!(toml::to_string(&again).expect("a script is TOML"), text);
    }

    #[test]
    fn a_script_with_an_unknown_word_is_refused() {
        for bad in [
            "[options]\nseed = 1\nnodes = 3\nfalts = []",
            "[options]\nseed = 1\nnodes = 3\n[[steps]]\nat_ms = 1\ndo = \"dance\"",
        ] {
            assert!(toml::from_str::<Script>(bad).is_err(), "{bad}");
        }
    }
}
