//! What waits to be sent on one link: frames back to back, one send with the kernel at a time.

use crate::domain::{PaymentId, UtcNanos};
use crate::wire::{FRAME_PREFIX_BYTES, Frame, FrameHeader, PaymentRequest, Template, seal};

/// A link's outgoing bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pending: Vec<u8>,
    /// The buffer that comes back from the kernel, to be filled next.
    spare: Vec<u8>,
    /// Requests among the pending bytes: where, and until when each may be sent.
    requests: Vec<(u32, UtcNanos)>,
    frames: u32,
    in_flight_bytes: usize,
    /// A send is with the kernel.
    sending: bool,
}

impl Outgoing {
    /// For frames that a session writes itself.
    pub(super) fn session_bytes(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Bytes not yet taken by the kernel.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.pending.len() + self.in_flight_bytes
    }

    /// Seals and appends a frame.
    #[inline]
    pub(super) fn push_frame(&mut self, template: Template, bytes: &[u8]) {
        let at = self.pending.len();
        self.pending.extend_from_slice(bytes);
        seal(&mut self.pending[at..], template);
        self.frames += 1;
    }

    /// Appends a sealed request that may be sent until `deadline`.
    #[inline]
    pub(super) fn push_request(&mut self, frame: &[u8; 128], deadline: UtcNanos) {
        self.requests.push((self.pending.len() as u32, deadline));
        self.pending.extend_from_slice(frame);
        self.frames += 1;
    }

    /// Appends a request out of its journal record, which `copy` writes: the first twelve bytes are the switch's own
    /// stamp and become the frame's header again; the CRC and the content are as they came.
    #[inline]
    pub(super) fn push_journaled(&mut self, deadline: UtcNanos, copy: impl FnOnce(&mut [u8])) {
        const HEADER: FrameHeader = FrameHeader::new(Template::PaymentRequest, size_of::<PaymentRequest>());
        let mut frame = [0; size_of::<PaymentRequest>()];
        copy(&mut frame);
        frame[..FRAME_PREFIX_BYTES].copy_from_slice(&bytemuck::bytes_of(&HEADER)[..FRAME_PREFIX_BYTES]);
        self.push_request(&frame, deadline);
    }

    /// Takes what is pending as one send. Requests that may not be sent any more are left out and reported.
    pub(super) fn take(&mut self, now: UtcNanos, mut expired: impl FnMut(PaymentId)) -> Option<(Vec<u8>, u32)> {
        debug_assert!(!self.sending);
        if self.requests.iter().any(|(_, deadline)| *deadline < now) {
            self.drop_expired(now, &mut expired);
        }
        self.requests.clear();
        if self.pending.is_empty() {
            return None;
        }
        let frames = std::mem::take(&mut self.frames);
        let bytes = std::mem::replace(&mut self.pending, std::mem::take(&mut self.spare));
        self.in_flight_bytes = bytes.len();
        self.sending = true;
        Some((bytes, frames))
    }

    /// The kernel has taken the send; `buffer` comes back empty.
    pub(super) fn sent(&mut self, buffer: Vec<u8>) {
        self.sending = false;
        self.in_flight_bytes = 0;
        self.spare = buffer;
        self.spare.clear();
    }

    /// Takes the requests out of which no byte was handed to the kernel; other frames stay.
    pub(super) fn take_back_requests(&mut self, mut not_sent: impl FnMut(PaymentId)) {
        if !self.requests.is_empty() {
            self.drop_expired(UtcNanos::NEVER, &mut not_sent);
            self.requests.clear();
        }
    }

    #[cold]
    fn drop_expired(&mut self, now: UtcNanos, expired: &mut impl FnMut(PaymentId)) {
        let mut kept = Vec::with_capacity(self.pending.len());
        let mut from = 0;
        for &(at, deadline) in &self.requests {
            if deadline < now {
                expired(request_id(&self.pending, at));
                kept.extend_from_slice(&self.pending[from..at as usize]);
                from = at as usize + size_of::<PaymentRequest>();
                self.frames -= 1;
            }
        }
        kept.extend_from_slice(&self.pending[from..]);
        self.pending = kept;
    }
}

fn request_id(pending: &[u8], at: u32) -> PaymentId {
    PaymentRequest::read(&pending[at as usize..]).body.id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BusinessDate, ParticipantIndex};
    use crate::wire::{Answer, decode};
    use bytemuck::Zeroable;

    fn request(serial: u64) -> [u8; 128] {
        let mut request = PaymentRequest::zeroed();
        request.body.id = PaymentId::new(BusinessDate(20_260_204), ParticipantIndex(1), 0, serial);
        bytemuck::cast(request.sealed())
    }

    fn serials(mut bytes: &[u8]) -> Vec<u64> {
        let mut serials = Vec::new();
        while let Some((template, length)) = decode(bytes).unwrap() {
            if template == Template::PaymentRequest {
                serials.push(PaymentRequest::read(bytes).body.id.serial());
            }
            bytes = &bytes[length..];
        }
        serials
    }

    #[test]
    fn a_request_past_its_time_is_not_sent_and_reported() {
        let mut outgoing = Outgoing::default();
        outgoing.push_request(&request(1), UtcNanos(100));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(&request(2), UtcNanos(300));
        outgoing.push_request(&request(3), UtcNanos(150));
        let mut expired = Vec::new();
        let (bytes, frames) = outgoing.take(UtcNanos(200), |id| expired.push(id.serial())).unwrap();
        assert_eq!((expired, serials(&bytes), frames), (vec![1, 3], vec![2], 2));
        assert_eq!(bytes.len(), 128 + 96);
    }

    #[test]
    fn a_lost_link_reports_what_was_not_handed_to_the_kernel_and_nothing_else() {
        let mut outgoing = Outgoing::default();
        outgoing.push_request(&request(1), UtcNanos(100));
        assert!(outgoing.take(UtcNanos(0), |_| panic!("nothing has expired")).is_some());
        outgoing.push_request(&request(2), UtcNanos(100));
        let mut lost = Vec::new();
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.take_back_requests(|id| lost.push(id.serial()));
        assert_eq!(
            (lost, outgoing.backlog_bytes()),
            (vec![2], 128 + 96),
            "the other frame stays"
        );
    }
}
