//! From rules to BPF: the architecture first, then a binary search over the call's number, then its arguments. Runs of
//! numbers with the same fate are one leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::{Action, Comparison, Condition, Error, Filter, Profile};

const TABLE: &str = include_str!("syscalls.txt");
/// The kernel takes no more.
const MAX_INSTRUCTIONS: usize = 4096;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

type Numbers = HashMap<&'static str, (Option<u32>, Option<u32>)>;

fn numbers() -> &'static Numbers {
    static NUMBERS: OnceLock<Numbers> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &'static str| {
            let mut words = line.split(' ');
            let name = words.next()?;
            Some((name, (words.next()?.parse().ok(), words.next()?.parse().ok())))
        };
        lines.filter_map(parse).collect()
    })
}

/// Every call in the table.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next())
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

fn give(action: Action) -> u64 {
    let value = match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Notify => 0x7fc0_0000,
        Action::Trace(message) => 0x7ff0_0000 | u32::from(message),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    };
    instruction(RETURN, 0, 0, value)
}

/// What happens to one number: alternatives in order, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fate {
    alternatives: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

pub(super) fn compile(profile: &Profile) -> Result<Filter, Error> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Architecture);
    }
    let native = section(profile, |(native, _)| native);
    let mut code = vec![instruction(LOAD, 0, 0, ARCHITECTURE)];
    // Another architecture's numbers mean other calls.
    let foreign = match profile.i386 {
        true => {
            let mut foreign = vec![instruction(EQUAL, 1, 0, I386), give(Action::KillThread)];
            foreign.push(instruction(LOAD, 0, 0, NUMBER));
            foreign.extend(section(profile, |(_, i386)| i386));
            foreign
        }
        false => vec![give(Action::KillThread)],
    };
    code.push(instruction(EQUAL, 1, 0, X86_64));
    code.push(instruction(JUMP, 0, 0, (native.len() + 3) as u32));
    code.push(instruction(LOAD, 0, 0, NUMBER));
    // -1 is what a tracer leaves to skip a call; it is no x32 number, and no call either.
    code.push(instruction(GREATER_OR_EQUAL, 0, 1, X32_BIT));
    code.push(give(Action::Errno(libc::ENOSYS as u16)));
    code.extend(native);
    code.extend(foreign);
    if code.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLarge(code.len()));
    }
    Ok(Filter { instructions: code, flags: profile.flags })
}

/// The code for one architecture; the number is in the accumulator.
fn section(profile: &Profile, pick: impl Fn((Option<u32>, Option<u32>)) -> Option<u32>) -> Vec<u64> {
    let mut fates: BTreeMap<u32, Fate> = BTreeMap::new();
    for rule in &profile.rules {
        for name in &rule.names {
            let Some(number) = numbers().get(name.as_str()).and_then(|both| pick(*both)) else { continue };
            let fate = fates
                .entry(number)
                .or_insert_with(|| Fate { alternatives: Vec::new(), otherwise: profile.default });
            match rule.conditions.is_empty() {
                true => fate.otherwise = rule.action,
                false => fate.alternatives.push((rule.conditions.clone(), rule.action)),
            }
        }
    }
    // Ranges from each number to the next.
    let nothing = Fate { alternatives: Vec::new(), otherwise: profile.default };
    let mut ranges: Vec<(u32, Fate)> = vec![(0, nothing.clone())];
    let mut add = |from: u32, fate: Fate| match ranges.last_mut() {
        Some((start, last)) if *start == from => *last = fate,
        Some((_, last)) if *last == fate => {}
        _ => ranges.push((from, fate)),
    };
    for (number, fate) in &fates {
        add(*number, fate.clone());
        if !fates.contains_key(&(number + 1)) {
            add(number + 1, nothing.clone());
        }
    }
    // Replacing the first range may have made it equal to the second.
    ranges.dedup_by(|second, first| second.1 == first.1);
    search(&ranges)
}

fn search(ranges: &[(u32, Fate)]) -> Vec<u64> {
    if let [(_, fate)] = ranges {
        return leaf(fate);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let (first, left, right) = (right[0].0, search(left), search(right));
    let mut code = Vec::with_capacity(left.len() + right.len() + 2);
    match u8::try_from(left.len()) {
        Ok(skip) => code.push(instruction(GREATER_OR_EQUAL, skip, 0, first)),
        Err(_) => {
            code.push(instruction(GREATER_OR_EQUAL, 0, 1, first));
            code.push(instruction(JUMP, 0, 0, left.len() as u32));
        }
    }
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(fate: &Fate) -> Vec<u64> {
    let mut code = Vec::new();
    for (conditions, action) in &fate.alternatives {
        let tests: Vec<Vec<Test>> = conditions.iter().map(tests).collect();
        let mut left: usize = tests.iter().map(Vec::len).sum::<usize>() + 1;
        for condition in tests {
            let mut within = condition.len();
            for test in condition {
                (left, within) = (left - 1, within - 1);
                // From the next instruction: to the next alternative, and to the next condition.
                let target = |goal: Goal| match goal {
                    Goal::Next => 0,
                    Goal::Hold => within as u8,
                    Goal::Fail => left as u8,
                };
                code.push(match test {
                    Test::Do(code, k) => instruction(code, 0, 0, k),
                    Test::Jump(code, k, yes, no) => instruction(code, target(yes), target(no), k),
                });
            }
        }
        code.push(give(*action));
    }
    code.push(give(fate.otherwise));
    code
}

#[derive(Clone, Copy)]
enum Goal {
    /// The next instruction.
    Next,
    /// The condition holds: the next condition, or the action.
    Hold,
    /// It does not: the next alternative.
    Fail,
}

enum Test {
    Do(u16, u32),
    Jump(u16, u32, Goal, Goal),
}

/// 64-bit comparisons in halves, the high one first.
fn tests(condition: &Condition) -> Vec<Test> {
    use Goal::{Fail, Hold, Next};
    let low = ARGUMENTS + condition.index * 8;
    let (load_high, load_low) = (Test::Do(LOAD, low + 4), Test::Do(LOAD, low));
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high_value, low_value) = halves(condition.value);
    // Decide by the high half if it differs, else by `last` on the low one.
    let ordered = |above: Goal, below: Goal, last: Test| {
        vec![
            load_high_of(low),
            Test::Jump(GREATER, high_value, above, Next),
            Test::Jump(EQUAL, high_value, Next, below),
            Test::Do(LOAD, low),
            last,
        ]
    };
    match condition.op {
        Comparison::Equal => vec![
            load_high,
            Test::Jump(EQUAL, high_value, Next, Fail),
            load_low,
            Test::Jump(EQUAL, low_value, Hold, Fail),
        ],
        Comparison::NotEqual => vec![
            load_high,
            Test::Jump(EQUAL, high_value, Next, Hold),
            load_low,
            Test::Jump(EQUAL, low_value, Fail, Hold),
        ],
        Comparison::Greater => ordered(Hold, Fail, Test::Jump(GREATER, low_value, Hold, Fail)),
        Comparison::GreaterOrEqual => {
            ordered(Hold, Fail, Test::Jump(GREATER_OR_EQUAL, low_value, Hold, Fail))
        }
        Comparison::Less => ordered(Fail, Hold, Test::Jump(GREATER_OR_EQUAL, low_value, Fail, Hold)),
        Comparison::LessOrEqual => ordered(Fail, Hold, Test::Jump(GREATER, low_value, Fail, Hold)),
        Comparison::MaskedEqual => {
            let (high_wanted, low_wanted) = halves(condition.value_two);
            vec![
                load_high,
                Test::Do(AND, high_value),
                Test::Jump(EQUAL, high_wanted, Next, Fail),
                load_low,
                Test::Do(AND, low_value),
                Test::Jump(EQUAL, low_wanted, Hold, Fail),
            ]
        }
    }
}

fn load_high_of(low: u32) -> Test {
    Test::Do(LOAD, low + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities;
    use crate::seccomp::{Rule, runtime_default};

    /// The kernel's interpreter, as far as filters need it.
    fn run(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            offset => {
                let argument = arguments[((offset - ARGUMENTS) / 8) as usize];
                if (offset - ARGUMENTS) % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let packed = filter.instructions[at];
            let (code, jt, jf, k) =
                ((packed >> 48) as u16, (packed >> 40) as u8, (packed >> 32) as u8, packed as u32);
            at += 1;
            let mut branch = |yes: bool| at += usize::from(if yes { jt } else { jf });
            match code {
                LOAD => accumulator = word(k),
                AND => accumulator &= k,
                EQUAL => branch(accumulator == k),
                GREATER => branch(accumulator > k),
                GREATER_OR_EQUAL => branch(accumulator >= k),
                JUMP => at += k as usize,
                RETURN => return k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;

    #[test]
    fn the_default_profile_decides_as_upstreams() {
        let plain = runtime_default(capabilities::DEFAULT).compile().unwrap();
        let admin = runtime_default(capabilities::ALL).compile().unwrap();
        let check = |filter: &Filter, name: &str, first: u64, expected: u32| {
            let (native, i386) = numbers()[name];
            for (architecture, number) in [(X86_64, native), (I386, i386)] {
                if let Some(number) = number {
                    let got = run(filter, architecture, number, [first, 0, 0, 0, 0, 0]);
                    assert_eq!(got, expected, "{name} {number} {first:#x} {architecture:#x}");
                }
            }
        };
        let (eperm, enosys) = (0x0005_0001, 0x0005_0026);
        for name in ["read", "write", "execve", "futex", "openat2", "mseal", "ptrace", "chroot", "seccomp"] {
            check(&plain, name, 0, ALLOW);
        }
        for name in [
            "unshare",
            "mount",
            "keyctl",
            "add_key",
            "bpf",
            "setns",
            "kexec_load",
            "io_uring_setup",
            "reboot",
        ] {
            check(&plain, name, 0, eperm);
        }
        check(&plain, "clone3", 0, enosys);
        check(&plain, "clone", 17, ALLOW);
        for namespace in [0x0002_0000, 0x1000_0000, 0x4000_0000] {
            check(&plain, "clone", 17 | namespace, eperm);
            check(&admin, "clone", 17 | namespace, ALLOW);
        }
        for (family, expected) in
            [(1, ALLOW), (2, ALLOW), (16, ALLOW), (38, eperm), (39, ALLOW), (40, eperm), (45, ALLOW)]
        {
            check(&plain, "socket", family, expected);
        }
        for (persona, expected) in
            [(0, ALLOW), (8, ALLOW), (0x0004_0000, eperm), (0xffff_ffff, ALLOW), (1 << 33, eperm)]
        {
            check(&plain, "personality", persona, expected);
        }
        for name in ["unshare", "mount", "bpf", "setns", "clone3"] {
            check(&admin, name, 0, ALLOW);
        }
        check(&admin, "keyctl", 0, eperm);
        for number in [500, 9999] {
            assert_eq!(run(&plain, X86_64, number, [0; 6]), eperm);
        }
        assert_eq!(run(&plain, X86_64, X32_BIT, [0; 6]), enosys);
        assert_eq!(run(&plain, 0xc000_00b7, 0, [0; 6]), 0);
        assert!(plain.instructions.len() < 700, "{}", plain.instructions.len());
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        let values = [0, 1, 5, 6, 0xffff_ffff, 1 << 32, (1 << 32) + 5, u64::MAX];
        let ops: [(Comparison, fn(u64, u64) -> bool); 7] = [
            (Comparison::Equal, |a, b| a == b),
            (Comparison::NotEqual, |a, b| a != b),
            (Comparison::Less, |a, b| a < b),
            (Comparison::LessOrEqual, |a, b| a <= b),
            (Comparison::Greater, |a, b| a > b),
            (Comparison::GreaterOrEqual, |a, b| a >= b),
            (Comparison::MaskedEqual, |a, b| a & b == 5),
        ];
        for (op, holds) in ops {
            for value in values {
                let condition = |index| Condition { index, value, value_two: 5, op };
                let rule = Rule {
                    names: vec!["read".into()],
                    action: Action::Errno(9),
                    conditions: vec![condition(1), condition(3)],
                };
                let profile = Profile { default: Action::Allow, i386: false, rules: vec![rule], flags: 0 };
                let filter = profile.compile().unwrap();
                for (a, b) in values.iter().flat_map(|a| values.map(|b| (*a, b))) {
                    let refused = run(&filter, X86_64, 0, [7, a, 7, b, 7, 7]) != ALLOW;
                    assert_eq!(refused, holds(a, value) && holds(b, value), "{op:?} {a} {b} {value}");
                }
            }
        }
    }

    #[test]
    fn profiles_are_read() {
        let check = |json: &str, expected: Result<u32, &str>| {
            let got = Profile::parse(json.as_bytes()).and_then(|profile| profile.compile());
            match expected {
                Ok(expected) => {
                    assert_eq!(run(&got.unwrap(), X86_64, numbers()["mkdir"].0.unwrap(), [0; 6]), expected)
                }
                Err(message) => assert_eq!(got.unwrap_err().to_string(), message),
            }
        };
        let with = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#);
        check(&with(r#"{"names":["mkdir","nonesuch"],"action":"SCMP_ACT_ERRNO"}"#), Ok(0x0005_0001));
        check(&with(r#"{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":38}"#), Ok(0x0005_0026));
        check(&with(r#"{"names":["rmdir"],"action":"SCMP_ACT_KILL"}"#), Ok(ALLOW));
        check(r#"{"defaultAction":"SCMP_ACT_LOG"}"#, Ok(0x7ffc_0000));
        check(" \n", Err("seccomp profile is empty"));
        check(r#"{"defaultAction":"ALLOW"}"#, Err("seccomp profile: unknown action \"ALLOW\""));
        let odd = r#"{"names":["mkdir"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#;
        check(&with(odd), Err("seccomp profile: argument index 6 is out of range"));
    }
}
