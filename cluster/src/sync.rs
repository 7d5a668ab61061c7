//! Sync: how changes reach every node — pushed whole to a few at once, told in short to neighbours and given to whoever
//! asks, and compared with one random member now and then.
//!
//! Input: the planes, by reference, and what peers say of theirs. Output: messages, and when to speak next. Nothing
//! here changes a plane. See `docs/protocol.md#sync`.

pub mod acknowledged;
pub mod asking;
pub mod compare;
pub mod copies;
pub mod message;
pub mod news;
pub mod rounds;
pub mod rumour;
pub mod telling;
