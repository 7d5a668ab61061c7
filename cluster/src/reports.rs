//! Reports: what each node says of itself, with that node as the only writer.

pub mod task;
