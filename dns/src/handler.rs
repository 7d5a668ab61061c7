//! The request handler: turns a parsed question into the bytes to send, through hickory-server's own types.
//!
//! Input: a [`Request`]. Output: bytes given to a [`ResponseHandler`], here always [`Reply`]. The answer is measured and
//! cut here, with TC set, because the encoder of hickory-proto 0.26.3 leaves junk bytes and loses the OPT record when
//! it has to cut. Never waits: a question that must be forwarded is only told apart (`is_foreign`).

use std::sync::{Arc, Mutex, PoisonError};
use std::{option, slice};

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};

use crate::answer::{Answer, Verdict, Zone};
use crate::table::Table;

/// Bytes that an answer over UDP has at most when the client offers more: what passes every link unfragmented
/// (DNS Flag Day 2020).
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
/// Bytes that an answer over UDP has at most when the client says nothing (RFC 1035 section 4.2.1).
pub(crate) const UDP_BYTES_PLAIN: u16 = 512;

/// Bytes of a record of an answer at most: an AAAA record owned by a name that is compressed to a pointer.
const RECORD_BYTES_MAX: usize = 28;
/// Bytes of an A record owned by such a name.
const A_RECORD_BYTES: usize = 16;
/// Bytes of an answer besides its answer records at most: header, question, the name once more, SOA, OPT.
const OVERHEAD_BYTES_MAX: usize = 12 + 259 + 255 + 120 + 11;

/// Answers requests from the table.
#[derive(Debug, Default)]
pub(crate) struct ZoneHandler {
    /// The names that are served.
    pub(crate) table: Table,
    zone: Zone,
}

/// Takes the bytes of one response. Clones share the place where the bytes are put.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    bytes: Arc<Mutex<Vec<u8>>>,
}

/// The handler's decision on one request.
pub(crate) enum Decision {
    /// Answer this.
    Answer(Answer),
    /// Ask the host's resolvers.
    Forward,
}

impl ZoneHandler {
    /// Returns what is to be done with a request.
    pub(crate) fn decide(&self, request: &Request) -> Decision {
        let [query] = request.queries.queries() else { return Decision::Answer(Answer::error(ResponseCode::FormErr)) };
        if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Decision::Answer(Answer::error(ResponseCode::BADVERS));
        }
        let (query, client) = (query.original(), request.src().ip().to_canonical());
        match self.zone.answer(&self.table, client, (&query.name, query.query_type, query.query_class)) {
            Verdict::Ours(answer) => Decision::Answer(answer),
            Verdict::Foreign => Decision::Forward,
        }
    }
}

#[async_trait]
impl RequestHandler for ZoneHandler {
    /// Answers a request about the shoal; one about another name is answered with SERVFAIL, for the caller forwards
    /// those before they come here.
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let answer = match self.decide(request) {
            Decision::Answer(answer) => answer,
            Decision::Forward => Answer::error(ResponseCode::ServFail),
        };
        let edns = request.edns.as_ref().map(reply_edns);
        let kept = fitting(request, &answer, edns.as_ref());
        match response_handle.send_response(message(request, &answer, kept, edns.as_ref())).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "answer cannot be encoded");
                Header { metadata: request.metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}

#[async_trait]
impl ResponseHandler for Reply {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clear();
        Ok(response.destructive_emit(&mut BinEncoder::new(&mut bytes))?)
    }
}

impl Reply {
    /// Returns the bytes that were put here; none if the answer could not be encoded.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns a response of the first `kept` records of an answer, with TC set if that is not all of them.
fn message<'q, 'a>(
    request: &'q Request,
    answer: &'a Answer,
    kept: usize,
    edns: Option<&'q Edns>,
) -> MessageResponse<
    'q,
    'a,
    slice::Iter<'a, Record>,
    slice::Iter<'a, Record>,
    option::IntoIter<&'a Record>,
    option::IntoIter<&'a Record>,
> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = answer.code;
    metadata.authoritative = matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain);
    metadata.recursion_available = true;
    metadata.truncation = kept < answer.records.len();
    MessageResponseBuilder::new(&request.queries, edns).build(
        metadata,
        &answer.records[..kept],
        &answer.authority,
        None,
        None,
    )
}

/// Returns how many records of an answer fit what the client takes.
fn fitting(request: &Request, answer: &Answer, edns: Option<&Edns>) -> usize {
    let limit = bytes_max(request);
    if OVERHEAD_BYTES_MAX + answer.records.len() * RECORD_BYTES_MAX <= limit {
        return answer.records.len();
    }
    let mut bytes = Vec::new();
    let empty = message(request, answer, 0, edns).destructive_emit(&mut BinEncoder::new(&mut bytes));
    // hickory-proto 0.26.3 spells the owner of the first record out, and points the others to that.
    let mut length = if empty.is_ok() { bytes.len() + request.queries.as_bytes().len() } else { OVERHEAD_BYTES_MAX };
    let fits = |record: &&Record| {
        length += if record.record_type() == RecordType::A { A_RECORD_BYTES } else { RECORD_BYTES_MAX };
        length <= limit
    };
    answer.records.iter().take_while(fits).count()
}

/// Returns how many bytes the answer to this request may have.
fn bytes_max(request: &Request) -> usize {
    match request.protocol() {
        Protocol::Tcp => u16::MAX.into(),
        _ => udp_bytes_max(request).into(),
    }
}

/// Returns how many bytes the client of this request takes over UDP, as far as we send so many.
pub(crate) fn udp_bytes_max(request: &Request) -> u16 {
    request.edns.as_ref().map_or(UDP_BYTES_PLAIN, |edns| edns.max_payload().clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX))
}

/// Returns our OPT record to a client that sent one.
fn reply_edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}
