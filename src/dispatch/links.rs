//! The links dispatch may use, and what each still takes.

use crate::agent::Bucket;
use crate::domain::{LinkContract, LinkId, ParticipantIndex, UtcNanos};
use crate::wire::LinkChange;

/// One established link.
#[derive(Clone, Copy, Debug)]
pub(super) struct DispatchLink {
    pub(super) id: LinkId,
    pub(super) participant: ParticipantIndex,
    /// Requests sent on it and not yet final.
    pub(super) in_flight: u32,
    /// The lower of what was agreed when it came up and what its participant's contract says now.
    pub(super) in_flight_max: u32,
    /// What was agreed when it came up, or since.
    agreed_in_flight_max: u32,
    /// What the participant wants on this link.
    rate: Bucket,
    /// What it was given does not leave.
    clogged: bool,
}

/// What dispatch knows of one participant's links.
#[derive(Debug)]
struct Lines {
    slots: Vec<u16>,
    /// What it takes a second over all its links; a new link brings no new budget.
    rate: Bucket,
    /// What one of its links takes unanswered, whatever was agreed when the link came up.
    in_flight_max: u32,
}

/// All established links, by slot and by participant.
#[derive(Debug)]
pub(super) struct LinkTable {
    links: Vec<Option<DispatchLink>>,
    by_participant: Vec<Lines>,
}

impl LinkTable {
    /// No links yet, and room for so many participants.
    pub(super) fn new(room: usize) -> Self {
        let lines = || Lines {
            slots: Vec::new(),
            rate: Bucket::for_sending(0),
            in_flight_max: u32::MAX,
        };
        Self {
            links: Vec::new(),
            by_participant: std::iter::repeat_with(lines).take(room).collect(),
        }
    }

    /// A participant's contract is this from now on. Less holds at once on the links that are there, more on those that come.
    pub(super) fn agree(&mut self, participant: ParticipantIndex, contract: &LinkContract) {
        let Some(lines) = self.by_participant.get_mut(participant.index()) else {
            return;
        };
        lines.rate = lines.rate.for_sending_from_now_on(contract.request_per_second_max);
        lines.in_flight_max = contract.request_in_flight_max;
        for &slot in &lines.slots {
            if let Some(link) = &mut self.links[usize::from(slot)] {
                link.in_flight_max = link.agreed_in_flight_max.min(contract.request_in_flight_max);
            }
        }
    }

    /// Takes in what a link agent says; gives the participant that may have gained credit.
    pub(super) fn change(&mut self, change: LinkChange) -> Option<ParticipantIndex> {
        match change {
            LinkChange::Up {
                link,
                participant,
                in_flight_max,
                per_second_max,
            } => {
                if self.links.len() <= link.slot() {
                    self.links.resize(link.slot() + 1, None);
                }
                assert!(
                    self.links[link.slot()].is_none(),
                    "link slot {} came up twice",
                    link.slot()
                );
                let rate = Bucket::for_sending(per_second_max);
                let lines = &mut self.by_participant[participant.index()];
                self.links[link.slot()] = Some(DispatchLink {
                    id: link,
                    participant,
                    in_flight: 0,
                    in_flight_max: in_flight_max.min(lines.in_flight_max),
                    agreed_in_flight_max: in_flight_max,
                    rate,
                    clogged: false,
                });
                lines.slots.push(link.slot() as u16);
                Some(participant)
            }
            LinkChange::Contract {
                link,
                in_flight_max,
                per_second_max,
            } => {
                let participant = self.get_mut(link)?.participant;
                let most = self.by_participant[participant.index()].in_flight_max;
                let known = self.get_mut(link)?;
                known.in_flight_max = in_flight_max.min(most);
                known.agreed_in_flight_max = in_flight_max;
                known.rate = known.rate.for_sending_from_now_on(per_second_max);
                Some(participant)
            }
            LinkChange::Down { link } => {
                let participant = self.get_mut(link)?.participant;
                self.links[link.slot()] = None;
                let lines = &mut self.by_participant[participant.index()];
                lines.slots.retain(|&slot| usize::from(slot) != link.slot());
                None
            }
            LinkChange::Clogged { link } => {
                self.get_mut(link)?.clogged = true;
                None
            }
            LinkChange::Clear { link } => {
                let known = self.get_mut(link)?;
                known.clogged = false;
                Some(known.participant)
            }
            // They change no link: dispatch's queues take them.
            LinkChange::Unsent(_) | LinkChange::UnsentStatus { .. } => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut DispatchLink> {
        self.links
            .get_mut(link.slot())?
            .as_mut()
            .filter(|known| known.id == link)
    }

    pub(super) fn has_links(&self, participant: ParticipantIndex) -> bool {
        self.by_participant
            .get(participant.index())
            .is_some_and(|lines| !lines.slots.is_empty())
    }

    /// True when one of the participant's links takes what it is given.
    pub(super) fn has_clear_links(&self, participant: ParticipantIndex) -> bool {
        self.of(participant).any(|link| !link.clogged)
    }

    fn of(&self, participant: ParticipantIndex) -> impl Iterator<Item = &DispatchLink> {
        let slots = self.by_participant.get(participant.index()).map(|lines| &lines.slots);
        slots
            .into_iter()
            .flatten()
            .filter_map(|&slot| self.links[usize::from(slot)].as_ref())
    }

    /// The least loaded of the participant's links that takes one more request now; the request is counted on it.
    #[inline]
    pub(super) fn take_credit(&mut self, participant: ParticipantIndex, now: UtcNanos) -> Option<LinkId> {
        let links = &mut self.links;
        let lines = self.by_participant.get_mut(participant.index())?;
        if lines.rate.next_at(now) > now {
            return None;
        }
        let best = lines
            .slots
            .iter()
            .filter_map(|&slot| links[usize::from(slot)].as_ref())
            .filter(|link| !link.clogged && link.in_flight < link.in_flight_max && link.rate.next_at(now) <= now)
            // Load is a share of the contract, in 2⁻³² parts.
            .min_by_key(|link| (u64::from(link.in_flight) << 32) / u64::from(link.in_flight_max))?
            .id;
        let link = links[best.slot()].as_mut()?;
        if !link.rate.take(now) || !lines.rate.take(now) {
            return None;
        }
        link.in_flight += 1;
        Some(best)
    }

    /// A request sent on `link` is final.
    #[inline]
    pub(super) fn give_credit(&mut self, link: LinkId) -> Option<ParticipantIndex> {
        let known = self.get_mut(link)?;
        known.in_flight = known.in_flight.saturating_sub(1);
        Some(known.participant)
    }

    /// The link a word should go by: the one that asked if it is still there, else the participant's least loaded, a
    /// clogged one only if there is no other.
    #[inline]
    pub(super) fn for_word(&self, participant: ParticipantIndex, via: LinkId) -> Option<LinkId> {
        if let Some(Some(link)) = self.links.get(via.slot())
            && link.id == via
            && link.participant == participant
        {
            return Some(via);
        }
        let best = self.of(participant).min_by_key(|link| (link.clogged, link.in_flight));
        best.map(|link| link.id)
    }

    /// The link a status request should go by: the participant's least loaded that takes what it is given.
    pub(super) fn for_status(&self, participant: ParticipantIndex) -> Option<LinkId> {
        let clear = self.of(participant).filter(|link| !link.clogged);
        clear.min_by_key(|link| link.in_flight).map(|link| link.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: ParticipantIndex = ParticipantIndex(3);
    const NOW: UtcNanos = UtcNanos(1_000_000_000_000);

    fn up(table: &mut LinkTable, slot: u16, in_flight_max: u32) -> LinkId {
        let link = LinkId::new(slot, 1);
        table.change(LinkChange::Up {
            link,
            participant: BANK,
            in_flight_max,
            per_second_max: 0,
        });
        link
    }

    fn contract(request_in_flight_max: u32, request_per_second_max: u32) -> LinkContract {
        LinkContract {
            request_in_flight_max,
            request_per_second_max,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    #[test]
    fn a_contract_that_allows_less_holds_at_once_and_one_that_allows_more_as_far_as_was_agreed() {
        let mut table = LinkTable::new(4);
        table.agree(BANK, &contract(8, 0));
        let link = up(&mut table, 0, 8);
        let take = |table: &mut LinkTable| std::iter::from_fn(|| table.take_credit(BANK, NOW)).count();
        assert_eq!(take(&mut table), 8);
        table.agree(BANK, &contract(3, 0));
        for _ in 0..5 {
            table.give_credit(link);
        }
        assert_eq!(take(&mut table), 0, "three are still unanswered");
        table.give_credit(link);
        assert_eq!(take(&mut table), 1);
        table.agree(BANK, &contract(100, 0));
        assert_eq!(take(&mut table), 5, "the link was told that it gets eight");
        let other = up(&mut table, 1, 20);
        assert_eq!(take(&mut table), 20);
        table.change(LinkChange::Down { link: other });
        table.agree(BANK, &contract(2, 0));
        // It signed on before, and is told to dispatch after.
        up(&mut table, 1, 20);
        assert_eq!(take(&mut table), 2);
    }

    #[test]
    fn requests_spread_by_load_and_stop_at_the_contract() {
        let mut table = LinkTable::new(4);
        let (small, large) = (up(&mut table, 0, 2), up(&mut table, 7, 6));
        let mut taken = Vec::new();
        while let Some(link) = table.take_credit(BANK, NOW) {
            taken.push(link);
        }
        assert_eq!(taken.iter().filter(|&&l| l == small).count(), 2);
        assert_eq!(taken.iter().filter(|&&l| l == large).count(), 6);
        assert_eq!(
            taken[..4].iter().filter(|&&l| l == small).count(),
            1,
            "shares stay even: {taken:?}"
        );
        table.give_credit(small);
        assert_eq!(table.take_credit(BANK, NOW), Some(small));
    }

    #[test]
    fn a_link_whose_rate_is_used_up_leaves_the_others_their_turn() {
        let mut table = LinkTable::new(4);
        let link = |slot| LinkId::new(slot, 1);
        for (slot, in_flight_max, per_second_max) in [(0, 1_000, 40), (1, 4, 0)] {
            table.change(LinkChange::Up {
                link: link(slot),
                participant: BANK,
                in_flight_max,
                per_second_max,
            });
        }
        let taken: Vec<_> = std::iter::from_fn(|| table.take_credit(BANK, NOW)).collect();
        assert_eq!(taken.iter().filter(|&&l| l == link(0)).count(), 2, "of its rate");
        assert_eq!(taken.iter().filter(|&&l| l == link(1)).count(), 4, "its contract");
    }

    #[test]
    fn a_participants_rate_holds_over_all_its_links_and_is_not_new_with_a_new_one() {
        let mut table = LinkTable::new(4);
        table.agree(BANK, &contract(5_000, 200));
        let first = up(&mut table, 0, 1_000);
        up(&mut table, 1, 1_000);
        let take = |table: &mut LinkTable, now| std::iter::from_fn(|| table.take_credit(BANK, now)).count();
        assert_eq!(take(&mut table, NOW), 10, "a twentieth at once");
        table.change(LinkChange::Down { link: first });
        up(&mut table, 2, 1_000);
        table.change(LinkChange::Contract {
            link: LinkId::new(2, 1),
            in_flight_max: 2_000,
            per_second_max: 500,
        });
        assert_eq!(take(&mut table, NOW), 0);
        assert_eq!(
            take(&mut table, NOW.plus(crate::domain::SECOND / 50)),
            3,
            "of 191 that flow a second"
        );
    }

    #[test]
    fn a_link_that_says_its_contract_again_is_not_sent_more_for_it() {
        let mut table = LinkTable::new(4);
        let link = up(&mut table, 0, 1_000);
        let says = |table: &mut LinkTable, per_second_max| {
            table.change(LinkChange::Contract {
                link,
                in_flight_max: 1_000,
                per_second_max,
            })
        };
        let take = |table: &mut LinkTable, now| std::iter::from_fn(|| table.take_credit(BANK, now)).count();
        says(&mut table, 100);
        assert_eq!(take(&mut table, NOW), 5);
        says(&mut table, 100);
        assert_eq!(take(&mut table, NOW), 0);
        says(&mut table, 1_000);
        assert_eq!(
            take(&mut table, NOW.plus(crate::domain::MILLISECOND)),
            0,
            "c is 1.05 ms"
        );
        assert!(take(&mut table, NOW.plus(2 * crate::domain::MILLISECOND)) > 0);
    }

    #[test]
    fn a_clogged_link_takes_no_requests_until_it_is_clear_and_words_only_where_no_other_does() {
        let mut table = LinkTable::new(4);
        let (clogged, other) = (up(&mut table, 0, 10), up(&mut table, 1, 2));
        table.change(LinkChange::Clogged { link: clogged });
        let taken: Vec<_> = std::iter::from_fn(|| table.take_credit(BANK, NOW)).collect();
        assert_eq!(taken, [other, other], "what is over its contract waits");
        assert_eq!(table.for_status(BANK), Some(other));
        assert_eq!(table.for_word(BANK, LinkId::NONE), Some(other));
        table.change(LinkChange::Down { link: other });
        assert!(table.has_links(BANK) && !table.has_clear_links(BANK));
        assert_eq!((table.take_credit(BANK, NOW), table.for_status(BANK)), (None, None));
        assert_eq!(table.for_word(BANK, LinkId::NONE), Some(clogged));
        assert_eq!(table.change(LinkChange::Clear { link: clogged }), Some(BANK));
        assert_eq!(table.take_credit(BANK, NOW), Some(clogged));
        assert_eq!(table.for_status(BANK), Some(clogged));
    }

    #[test]
    fn a_link_of_an_earlier_generation_is_not_this_link() {
        let mut table = LinkTable::new(4);
        let link = up(&mut table, 0, 2);
        table.change(LinkChange::Down { link });
        assert!(!table.has_links(BANK));
        let again = LinkId::new(0, 2);
        table.change(LinkChange::Up {
            link: again,
            participant: BANK,
            in_flight_max: 1,
            per_second_max: 0,
        });
        assert_eq!(table.give_credit(link), None);
        assert_eq!(table.for_word(BANK, link), Some(again));
    }
}
