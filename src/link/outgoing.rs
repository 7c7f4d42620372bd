//! What waits to be sent on one link: frames back to back, one send with the kernel at a time.

use crate::domain::{PaymentId, PaymentSlot, UtcNanos};
use crate::wire::{FRAME_PREFIX_BYTES, Frame, FrameHeader, PaymentRequest, Template, seal};

/// A request among the pending bytes.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    at: u32,
    slot: PaymentSlot,
    deadline: UtcNanos,
}

/// A link's outgoing bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pending: Vec<u8>,
    /// The buffer that comes back from the kernel, to be filled next.
    spare: Vec<u8>,
    requests: Vec<PendingRequest>,
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
    pub(super) fn push_request(&mut self, slot: PaymentSlot, frame: &[u8; 128], deadline: UtcNanos) {
        let at = self.pending.len() as u32;
        self.requests.push(PendingRequest { at, slot, deadline });
        self.pending.extend_from_slice(frame);
        self.frames += 1;
    }

    /// Takes what is pending as one send. Requests that may not be sent any more are left out and reported.
    pub(super) fn take(&mut self, now: UtcNanos, mut expired: impl FnMut(PaymentId)) -> Option<(Vec<u8>, u32)> {
        debug_assert!(!self.sending);
        if self.requests.iter().any(|request| request.deadline < now) {
            self.take_out(
                |request| request.deadline < now,
                |_, frame| expired(PaymentRequest::read(frame).body.id),
            );
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
    pub(super) fn take_back_requests(&mut self, mut unsent: impl FnMut(PaymentSlot, UtcNanos, &[u8; 128])) {
        if !self.requests.is_empty() {
            self.take_out(|_| true, |request, frame| unsent(request.slot, request.deadline, frame));
            self.requests.clear();
        }
    }

    /// Takes the requests that `goes` picks out of the pending bytes. Where the others lie is not known afterwards.
    #[cold]
    fn take_out(
        &mut self,
        goes: impl Fn(&PendingRequest) -> bool,
        mut taken: impl FnMut(&PendingRequest, &[u8; size_of::<PaymentRequest>()]),
    ) {
        let mut kept = Vec::with_capacity(self.pending.len());
        let mut from = 0;
        for request in self.requests.iter().filter(|request| goes(request)) {
            let at = request.at as usize;
            if let Some(frame) = self.pending[at..].first_chunk() {
                taken(request, frame);
            }
            kept.extend_from_slice(&self.pending[from..at]);
            from = at + size_of::<PaymentRequest>();
            self.frames -= 1;
        }
        kept.extend_from_slice(&self.pending[from..]);
        self.pending = kept;
    }
}

/// A request out of its journal record, which `copy` writes: the first twelve bytes are the switch's own stamp and become
/// the frame's header again; the CRC and the content are as they came.
#[inline]
pub(super) fn journaled_request(copy: impl FnOnce(&mut [u8])) -> [u8; size_of::<PaymentRequest>()] {
    const HEADER: FrameHeader = FrameHeader::new(Template::PaymentRequest, size_of::<PaymentRequest>());
    let mut frame = [0; size_of::<PaymentRequest>()];
    copy(&mut frame);
    frame[..FRAME_PREFIX_BYTES].copy_from_slice(&bytemuck::bytes_of(&HEADER)[..FRAME_PREFIX_BYTES]);
    frame
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
        outgoing.push_request(PaymentSlot(1), &request(1), UtcNanos(100));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(PaymentSlot(2), &request(2), UtcNanos(300));
        outgoing.push_request(PaymentSlot(3), &request(3), UtcNanos(150));
        let mut expired = Vec::new();
        let (bytes, frames) = outgoing.take(UtcNanos(200), |id| expired.push(id.serial())).unwrap();
        assert_eq!((expired, serials(&bytes), frames), (vec![1, 3], vec![2], 2));
        assert_eq!(bytes.len(), 128 + 96);
    }

    #[test]
    fn a_lost_link_gives_back_what_was_not_handed_to_the_kernel_and_nothing_else() {
        let mut outgoing = Outgoing::default();
        outgoing.push_request(PaymentSlot(1), &request(1), UtcNanos(100));
        assert!(outgoing.take(UtcNanos(0), |_| panic!("nothing has expired")).is_some());
        outgoing.push_request(PaymentSlot(2), &request(2), UtcNanos(200));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(PaymentSlot(3), &request(3), UtcNanos(50));
        let mut lost = Vec::new();
        outgoing.take_back_requests(|slot, deadline, frame| lost.push((slot.0, deadline.0, serials(frame))));
        assert_eq!(lost, [(2, 200, vec![2]), (3, 50, vec![3])], "in their order");
        assert_eq!(outgoing.backlog_bytes(), 128 + 96, "the other frame stays");
        outgoing.take_back_requests(|_, _, _| panic!("once is all"));
    }
}
