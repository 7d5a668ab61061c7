//! Nothing: this package is its tests. `architecture.rs` holds the rules of the house; `cluster.rs` runs the real binary,
//! so the package of the binary names it.
