//! Limits: how much an image from a stranger may cost us.
//!
//! Each bound is checked before the memory or disk is spent. The defaults accept every ordinary image.

/// Bounds on archives, documents and layers. All are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest JSON document (manifest, index, configuration) in bytes. They are parsed in memory. Default 4 MiB,
    /// the size that registries accept.
    pub document_bytes_max: u64,
    /// Most entries in one archive. Default 20,000: an image has two or three per layer.
    pub archive_entries_max: u64,
    /// Longest path inside an archive in bytes; together with `archive_entries_max` it bounds the memory for names.
    /// Default 512: the longest real ones are `blobs/sha256/` and 64 digits.
    pub archive_path_bytes_max: u64,
    /// Most bytes of one archive after decompression. Default 64 GiB.
    pub archive_bytes_max: u64,
    /// Most images that one archive may hold. Default 256.
    pub archive_images_max: usize,
    /// Most layers of one image. Default 127, Docker's own bound (overlayfs itself takes 500).
    pub layers_max: usize,
    /// Most bytes of one blob as stored. Default 16 GiB.
    pub blob_bytes_max: u64,
    /// Most bytes of one layer after decompression, headers included. Default 32 GiB.
    pub layer_bytes_max: u64,
    /// Most entries of one layer. Default 2 million; a full desktop distribution has about a quarter of that.
    pub layer_entries_max: u64,
    /// Most bytes of directory paths of one layer, which are remembered until its end. Default 128 MiB.
    pub layer_directory_bytes_max: u64,
    /// Longest path or link target inside a layer in bytes. Default 4,096, the kernel's own bound.
    pub layer_path_bytes_max: u64,
    /// Most path components below the layer root. Default 256.
    pub layer_depth_max: usize,
    /// Longest block of extended headers (long names, xattrs) of one entry in bytes. Default 1 MiB.
    pub extension_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes_max: 4 << 20,
            archive_entries_max: 20_000,
            archive_path_bytes_max: 512,
            archive_bytes_max: 64 << 30,
            archive_images_max: 256,
            layers_max: 127,
            blob_bytes_max: 16 << 30,
            layer_bytes_max: 32 << 30,
            layer_entries_max: 2_000_000,
            layer_directory_bytes_max: 128 << 20,
            layer_path_bytes_max: 4096,
            layer_depth_max: 256,
            extension_bytes_max: 1 << 20,
        }
    }
}
