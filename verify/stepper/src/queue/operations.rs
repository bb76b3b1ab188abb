//! Lists the operations of an end that has fellows.

use slipring::Role;

/// The number of messages that were passed before.
pub(super) const PASSED: u64 = 6;

/// The state of the first messages behind the passed ones when the operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The fellow consumer holds them in guards.
    Held,
    /// The fellow consumer gave them back.
    Returned,
    /// The fellow consumer put them aside.
    Letters,
}

/// The end that has died before the operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Nobody,
    /// A producer that had reserved two slots, one by one.
    Producer,
    /// A consumer that held two messages.
    Consumer,
}

/// One operation, to be killed at every instruction, or to be stopped there.
///
/// The messages are numbered: [`PASSED`] that are gone, `firsts`, `round` that were passed meanwhile, `before`.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) first: First,
    pub(super) firsts: u64,
    /// The number of messages that were passed after the first ones were taken: so many that the next position may be
    /// that of a first one, a lap later.
    pub(super) round: u64,
    /// The number of committed messages behind these.
    pub(super) before: u64,
    /// The number of these that the victim takes into guards before the operation begins.
    pub(super) guards: u64,
    /// The number of messages that fellows pass then.
    pub(super) laps: u64,
    pub(super) dead: Dead,
    /// The numbers of messages that the operation releases or drops, less [`PASSED`].
    pub(super) gone: &'static [u64],
    /// The numbers of messages that it puts aside, less [`PASSED`].
    pub(super) aside: &'static [u64],
    /// The numbers of the letters that it gives back, less [`PASSED`].
    pub(super) back: &'static [u64],
    /// The number of messages that it takes from those `before`, in their order.
    pub(super) takes: u64,
    /// The messages that it appends, counted from the next number.
    pub(super) added: &'static [u64],
    /// `true` if it reserves several slots at once.
    pub(super) run: bool,
    /// `true` if what the victim has in its hands is dropped when it dies.
    pub(super) at_most_once: bool,
    /// The rule of dead letters of the victim.
    pub(super) rule: Option<(u32, usize)>,
}

impl Operation {
    /// Returns the numbers of the first messages.
    pub(super) fn firsts(&self) -> std::ops::Range<u64> {
        PASSED..PASSED + self.firsts
    }

    /// Returns the numbers of the committed messages.
    pub(super) fn committed(&self) -> std::ops::Range<u64> {
        let from = PASSED + self.firsts + self.round;
        from..from + self.before
    }

    /// Returns the number of the next message that is sent when the operation begins. Fellows begin at `laps` less.
    pub(super) fn next(&self) -> u64 {
        self.committed().end + self.laps
    }

    /// Returns the seat of the one that died before, and its side. It has the first seat that is free beside the victim.
    pub(super) fn dead_seat(&self) -> Option<(Role, usize)> {
        let role = match self.dead {
            Dead::Nobody => return None,
            Dead::Producer => Role::Producer,
            Dead::Consumer => Role::Consumer,
        };
        Some((role, if role == self.role { 2 } else { 1 }))
    }

    pub(super) fn title(&self) -> String {
        let mut title = format!("{} with fellows: {}", self.role.name(), self.name);
        if self.firsts > 0 {
            title += match self.first {
                First::Held => ", one is held",
                First::Returned => ", some came back",
                First::Letters => ", there are dead letters",
            };
        }
        title += match self.dead {
            Dead::Nobody => "",
            Dead::Producer => ", a producer died",
            Dead::Consumer => ", a consumer died",
        };
        if self.at_most_once {
            title += ", at most once";
        }
        if self.rule.is_some() {
            title += ", it puts messages aside";
        }
        title
    }
}

const fn operation(name: &'static str, role: Role) -> Operation {
    Operation {
        name,
        role,
        first: First::Held,
        firsts: 0,
        round: 0,
        before: 0,
        guards: 0,
        laps: 0,
        dead: Dead::Nobody,
        gone: &[],
        aside: &[],
        back: &[],
        takes: 0,
        added: &[],
        run: false,
        at_most_once: false,
        rule: None,
    }
}

const fn produces(name: &'static str, before: u64, added: &'static [u64]) -> Operation {
    Operation {
        before,
        added,
        ..operation(name, Role::Producer)
    }
}

/// Reserves the position of the first message, a lap later. So it carries that message.
const fn carries(name: &'static str, first: First, added: &'static [u64]) -> Operation {
    Operation {
        first,
        firsts: 1,
        round: 4,
        ..produces(name, 0, added)
    }
}

const fn consumes(name: &'static str, before: u64, takes: u64, gone: &'static [u64]) -> Operation {
    Operation {
        before,
        takes,
        gone,
        ..operation(name, Role::Consumer)
    }
}

const fn run(operation: Operation) -> Operation {
    Operation {
        run: true,
        ..operation
    }
}

const fn at_most_once(operation: Operation) -> Operation {
    Operation {
        at_most_once: true,
        ..operation
    }
}

/// An operation of the consumer that finds a message given back, or a letter, before `before` others.
const fn finds(name: &'static str, first: First, firsts: u64, before: u64) -> Operation {
    Operation {
        first,
        firsts,
        ..consumes(name, before, 0, &[])
    }
}

/// All operations. Names may repeat: then they differ in what they find.
pub(super) static OPERATIONS: &[Operation] = &[
    produces("push", 2, &[0]),
    carries("push", First::Held, &[0]),
    carries("push", First::Returned, &[0]),
    carries("push", First::Letters, &[0]),
    produces("push-slice", 1, &[0, 1, 2]),
    carries("push-slice", First::Held, &[0, 1]),
    // The first message lies before the end of the run: free positions before it are given up.
    run(Operation {
        round: 3,
        ..carries("reserve-two", First::Held, &[0, 1])
    }),
    run(produces("owned-part", 0, &[0, 1])),
    produces("owned-commit", 1, &[0, 1]),
    produces("owned-reversed", 1, &[0, 1]),
    produces("owned-drop", 1, &[1]),
    Operation {
        dead: Dead::Consumer,
        ..produces("rescue", 4, &[])
    },
    consumes("pop", 2, 1, &[0]),
    consumes("pop-slice", 3, 3, &[0, 1, 2]),
    at_most_once(consumes("pop", 2, 1, &[0])),
    at_most_once(consumes("pop-slice", 3, 3, &[0, 1, 2])),
    at_most_once(consumes("owned-release", 4, 3, &[0, 1, 2])),
    consumes("read-keep", 3, 3, &[]),
    consumes("owned-release", 4, 3, &[0, 1, 2]),
    consumes("owned-drop", 2, 2, &[0, 1]),
    consumes("owned-keep", 3, 3, &[]),
    consumes("owned-mixed", 4, 3, &[0, 2]),
    // The fellows go round past what it holds.
    Operation {
        guards: 1,
        laps: 7,
        ..consumes("guards-release", 1, 1, &[0])
    },
    Operation {
        guards: 2,
        laps: 9,
        ..consumes("guards-keep", 2, 2, &[])
    },
    Operation {
        aside: &[0],
        ..consumes("put-aside", 2, 1, &[])
    },
    Operation {
        gone: &[0],
        ..finds("pop", First::Returned, 2, 1)
    },
    Operation {
        gone: &[2],
        takes: 1,
        aside: &[0, 1],
        rule: Some((1, 2)),
        ..finds("pop", First::Returned, 2, 1)
    },
    finds("read-keep", First::Returned, 1, 1),
    Operation {
        gone: &[0],
        ..finds("letter-release", First::Letters, 2, 1)
    },
    Operation {
        back: &[0],
        ..finds("letter-keep", First::Letters, 2, 1)
    },
    finds("letter-aside", First::Letters, 2, 1),
    // One letter too many: the oldest is dropped.
    Operation {
        gone: &[0],
        aside: &[1],
        takes: 1,
        rule: Some((9, 1)),
        ..finds("put-aside", First::Letters, 1, 2)
    },
    Operation {
        dead: Dead::Producer,
        ..consumes("rescue", 2, 2, &[0, 1])
    },
    Operation {
        dead: Dead::Consumer,
        ..consumes("rescue", 2, 0, &[0])
    },
];
