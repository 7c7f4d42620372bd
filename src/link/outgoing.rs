//! What waits to be sent on one link: frames back to back, one send with the kernel at a time.

use crate::domain::{ParticipantIndex, PaymentId, UtcNanos};
use crate::wire::{Frame, PaymentRequest, Seat, StatusRequest, Template, seal};

/// A request among the pending bytes.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    at: u32,
    seat: Seat,
    deadline: UtcNanos,
}

/// What of the pending bytes another link may send.
pub(super) enum TakenBack<'a> {
    /// A request, and until when it may be sent.
    Request(Seat, UtcNanos, &'a [u8; size_of::<PaymentRequest>()]),
    /// A status request to this bank.
    Status(ParticipantIndex, StatusRequest),
}

/// A link's outgoing bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pending: Vec<u8>,
    /// The buffer that comes back from the kernel, to be filled next.
    spare: Vec<u8>,
    requests: Vec<PendingRequest>,
    /// Where status requests lie among the pending bytes, and to which bank they go.
    status_requests: Vec<(u32, ParticipantIndex)>,
    frames: u32,
    in_flight_bytes: usize,
    /// Since when a send is with the kernel.
    sending_since: Option<UtcNanos>,
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
        self.sending_since.is_some()
    }

    /// Since when a send is with the kernel and not complete.
    pub(super) fn sending_since(&self) -> Option<UtcNanos> {
        self.sending_since
    }

    /// The earliest deadline of the requests behind a send that is with the kernel.
    pub(super) fn deadline_behind_send(&self) -> UtcNanos {
        let deadlines = self.requests.iter().map(|request| request.deadline);
        let behind = deadlines.min().filter(|_| self.is_sending());
        behind.unwrap_or(UtcNanos::NEVER)
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
    pub(super) fn push_request(&mut self, seat: Seat, frame: &[u8; 128], deadline: UtcNanos) {
        let at = self.pending.len() as u32;
        self.requests.push(PendingRequest { at, seat, deadline });
        self.pending.extend_from_slice(frame);
        self.frames += 1;
    }

    /// Seals and appends a status request.
    pub(super) fn push_status_request(&mut self, to: ParticipantIndex, request: &StatusRequest) {
        self.status_requests.push((self.pending.len() as u32, to));
        self.push_frame(Template::StatusRequest, bytemuck::bytes_of(request));
    }

    /// Takes what is pending as one send: whole frames up to `bytes_max`, the rest with the next. Requests that may not be sent
    /// any more are left out and reported.
    pub(super) fn take(
        &mut self,
        now: UtcNanos,
        bytes_max: usize,
        mut expired: impl FnMut(PaymentId),
    ) -> Option<(Vec<u8>, u32)> {
        debug_assert!(!self.is_sending());
        if self.requests.iter().any(|request| request.deadline < now) {
            self.drop_expired(now, &mut expired);
        }
        if self.pending.is_empty() {
            return None;
        }
        let mut bytes = std::mem::replace(&mut self.pending, std::mem::take(&mut self.spare));
        let mut frames = std::mem::take(&mut self.frames);
        if bytes.len() > bytes_max {
            frames = self.leave_behind(&mut bytes, frames, bytes_max);
        } else {
            self.requests.clear();
            self.status_requests.clear();
        }
        self.in_flight_bytes = bytes.len();
        self.sending_since = Some(now);
        Some((bytes, frames))
    }

    /// Puts the frames of `bytes` that do not fit into `bytes_max` back; gives how many of the `frames` remain in it.
    #[cold]
    fn leave_behind(&mut self, bytes: &mut Vec<u8>, frames: u32, bytes_max: usize) -> u32 {
        let (mut end, mut whole) = (0, 0);
        while let Some(&[low, high]) = bytes[end..].first_chunk() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            if end + length > bytes_max {
                break;
            }
            (end, whole) = (end + length, whole + 1);
        }
        self.pending.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        let cut = end as u32;
        self.requests.retain_mut(|request| {
            let stays = request.at >= cut;
            request.at = request.at.wrapping_sub(cut);
            stays
        });
        self.status_requests.retain_mut(|(at, _)| {
            let stays = *at >= cut;
            *at = at.wrapping_sub(cut);
            stays
        });
        let taken = frames.min(whole);
        self.frames = frames - taken;
        taken
    }

    /// The kernel has taken the send; `buffer` comes back empty.
    pub(super) fn sent(&mut self, buffer: Vec<u8>) {
        self.sending_since = None;
        self.in_flight_bytes = 0;
        self.spare = buffer;
        self.spare.clear();
    }

    #[cold]
    fn drop_expired(&mut self, now: UtcNanos, expired: &mut impl FnMut(PaymentId)) {
        let mut holes = Vec::new();
        for request in self.requests.iter().filter(|request| request.deadline < now) {
            let at = request.at as usize;
            expired(PaymentRequest::read(&self.pending[at..]).body.id);
            holes.push((at, size_of::<PaymentRequest>()));
        }
        self.close_holes(&holes);
        let moved =
            |at: u32| at - (holes.partition_point(|hole| hole.0 < at as usize) * size_of::<PaymentRequest>()) as u32;
        self.requests.retain_mut(|request| {
            request.at = moved(request.at);
            request.deadline >= now
        });
        for (at, _) in &mut self.status_requests {
            *at = moved(*at);
        }
    }

    /// Takes the requests and status requests out of which no byte was handed to the kernel; other frames stay.
    pub(super) fn take_back(&mut self, mut taken: impl FnMut(TakenBack<'_>)) {
        if self.requests.is_empty() && self.status_requests.is_empty() {
            return;
        }
        let mut holes = Vec::with_capacity(self.requests.len() + self.status_requests.len());
        for request in self.requests.drain(..) {
            let at = request.at as usize;
            if let Some(frame) = self.pending[at..].first_chunk() {
                taken(TakenBack::Request(request.seat, request.deadline, frame));
            }
            holes.push((at, size_of::<PaymentRequest>()));
        }
        for (at, to) in self.status_requests.drain(..) {
            let at = at as usize;
            taken(TakenBack::Status(to, StatusRequest::read(&self.pending[at..])));
            holes.push((at, size_of::<StatusRequest>()));
        }
        holes.sort_unstable();
        self.close_holes(&holes);
    }

    /// Cuts frames, given by where they begin and how long they are, out of the pending bytes. Where the others lie is not
    /// known afterwards.
    fn close_holes(&mut self, holes: &[(usize, usize)]) {
        let mut kept = Vec::with_capacity(self.pending.len());
        let mut from = 0;
        for &(at, length) in holes {
            kept.extend_from_slice(&self.pending[from..at]);
            from = at + length;
        }
        kept.extend_from_slice(&self.pending[from..]);
        self.pending = kept;
        self.frames -= holes.len() as u32;
    }
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

    fn seat(slot: u32) -> Seat {
        Seat {
            slot: crate::domain::PaymentSlot(slot),
            turn: 1,
        }
    }

    fn asked(serial: u64) -> StatusRequest {
        let mut asked = StatusRequest::zeroed();
        asked.id = PaymentRequest::read(&request(serial)).body.id;
        asked
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
        outgoing.push_request(seat(1), &request(1), UtcNanos(100));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(seat(2), &request(2), UtcNanos(300));
        outgoing.push_request(seat(3), &request(3), UtcNanos(150));
        let mut expired = Vec::new();
        let (bytes, frames) = outgoing
            .take(UtcNanos(200), usize::MAX, |id| expired.push(id.serial()))
            .unwrap();
        assert_eq!((expired, serials(&bytes), frames), (vec![1, 3], vec![2], 2));
        assert_eq!(bytes.len(), 128 + 96);
    }

    #[test]
    fn what_was_not_handed_to_the_kernel_is_taken_back_and_nothing_else() {
        let mut outgoing = Outgoing::default();
        outgoing.push_request(seat(1), &request(1), UtcNanos(100));
        outgoing.push_status_request(ParticipantIndex(4), &asked(9));
        assert_eq!(outgoing.deadline_behind_send(), UtcNanos::NEVER, "nothing is stuck");
        assert!(
            outgoing
                .take(UtcNanos(7), usize::MAX, |_| panic!("nothing has expired"))
                .is_some()
        );
        assert_eq!(outgoing.sending_since(), Some(UtcNanos(7)));
        outgoing.push_request(seat(2), &request(2), UtcNanos(200));
        outgoing.push_status_request(ParticipantIndex(5), &asked(1));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(seat(3), &request(3), UtcNanos(50));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        assert_eq!(outgoing.deadline_behind_send(), UtcNanos(50));
        let (mut lost, mut unasked) = (Vec::new(), Vec::new());
        outgoing.take_back(|taken| match taken {
            TakenBack::Request(seat, deadline, frame) => lost.push((seat.slot.0, deadline.0, serials(frame))),
            TakenBack::Status(to, request) => unasked.push((to.0, request.id.serial())),
        });
        assert_eq!(lost, [(2, 200, vec![2]), (3, 50, vec![3])], "in their order");
        assert_eq!(unasked, [(5, 1)]);
        assert_eq!(outgoing.deadline_behind_send(), UtcNanos::NEVER);
        assert_eq!(outgoing.backlog_bytes(), 128 + 64 + 2 * 96, "the other frames stay");
        outgoing.take_back(|_| panic!("once is all"));
        outgoing.sent(Vec::new());
        let (rest, frames) = outgoing
            .take(UtcNanos(300), usize::MAX, |_| panic!("no request is left"))
            .unwrap();
        assert_eq!(
            (rest.len(), frames, serials(&rest)),
            (2 * 96, 2, vec![]),
            "whole frames"
        );
    }

    #[test]
    fn a_send_takes_whole_frames_up_to_its_bound_and_what_is_behind_can_still_be_taken_back() {
        let mut outgoing = Outgoing::default();
        outgoing.push_request(seat(9), &request(9), UtcNanos(6));
        outgoing.push_request(seat(1), &request(1), UtcNanos(100));
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        outgoing.push_request(seat(8), &request(8), UtcNanos(5));
        outgoing.push_request(seat(2), &request(2), UtcNanos(300));
        outgoing.push_status_request(ParticipantIndex(5), &asked(4));
        let mut expired = Vec::new();
        let taken = outgoing.take(UtcNanos(7), 300, |id| expired.push(id.serial()));
        let (bytes, frames) = taken.expect("frames wait");
        assert_eq!(expired, [9, 8]);
        assert_eq!((bytes.len(), frames), (128 + size_of::<Answer>(), 2));
        assert_eq!(outgoing.deadline_behind_send(), UtcNanos(300));
        outgoing.sent(bytes);
        outgoing.push_frame(Template::Answer, &[0; size_of::<Answer>()]);
        let mut taken = Vec::new();
        outgoing.take_back(|back| match back {
            TakenBack::Request(back, deadline, frame) => {
                assert_eq!((back, deadline), (seat(2), UtcNanos(300)));
                taken.push(PaymentRequest::read(frame).body.id.serial());
            }
            TakenBack::Status(to, asked) => {
                assert_eq!(to, ParticipantIndex(5));
                taken.push(asked.id.serial());
            }
        });
        assert_eq!(taken, [2, 4]);
        let (bytes, frames) = outgoing
            .take(UtcNanos(8), 300, |_| panic!("no request is left"))
            .unwrap();
        assert_eq!((bytes.len(), frames), (size_of::<Answer>(), 1));
    }
}
