//! Which devices the processes of a group may open and make: lists on v1, a small program for the kernel on v2.

use super::Cgroup;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Allows a device, or many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

impl DeviceRule {
    fn line(&self) -> String {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

impl Cgroup {
    /// Forbids every device but those of the rules. Without the v1 controller and without BPF this fails: a group that
    /// silently allows all would be worse.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        if let Some(dir) = self.v1_dir("devices") {
            fs::write(dir.join("devices.deny"), "a")?;
            for rule in rules {
                // Of both kinds at once the file takes only "everything".
                let kinds: &[char] = if rule.kind == 'a' { &['b', 'c'] } else { &[rule.kind] };
                for kind in kinds {
                    let rule = DeviceRule { kind: *kind, ..rule.clone() };
                    fs::write(dir.join("devices.allow"), rule.line())?;
                }
            }
            return Ok(());
        }
        match &self.unified {
            Some(dir) => attach(dir, &program(rules)),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "no devices controller")),
        }
    }
}

/// One BPF instruction, as the kernel lays it out.
type Instruction = u64;

fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    u64::from(code)
        | u64::from(dst | (src << 4)) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The context is `struct bpf_cgroup_dev_ctx`: access and kind in one word (access << 16 | kind), major, minor.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // r2: kind, r3: access, r4: major, r5: minor.
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        let kind = match rule.kind {
            'b' => Some(1),
            'c' => Some(2),
            _ => None,
        };
        let access = rule.access.chars().fold(0, |bits, c| {
            bits | match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        if let Some(kind) = kind {
            tests.push((JUMP_NOT_EQUAL, 2, 0, kind));
        }
        if access != 7 {
            // Everything asked for must be among what is allowed: (asked & allowed) == asked.
            tests.push((MOVE_REGISTER, 0, 3, 0));
            tests.push((AND, 0, 0, access));
            tests.push((JUMP_NOT_EQUAL_REGISTER, 0, 3, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                tests.push((JUMP_NOT_EQUAL, register, 0, number as i32));
            }
        }
        // A failed test jumps behind the rule's own verdict, which is two instructions.
        let count = tests.len();
        for (index, (code, dst, src, immediate)) in tests.into_iter().enumerate() {
            let jumps = code == JUMP_NOT_EQUAL || code == JUMP_NOT_EQUAL_REGISTER;
            let offset = if jumps { (count - index - 1 + 2) as i16 } else { 0 };
            program.push(instruction(code, dst, src, offset, immediate));
        }
        program.extend([instruction(MOVE, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
        if count == 0 {
            // Everything is allowed: the kernel takes no program with instructions that are never reached.
            return program;
        }
    }
    program.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i64> {
    // SAFETY: the attributes are a prefix of `union bpf_attr`, their pointers are to live slices, and the length is theirs.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn attach(dir: &Path, program: &[Instruction]) -> io::Result<()> {
    let license = c"Apache-2.0";
    let load = LoadAttributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: a descriptor that the kernel has just given us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let group = fs::File::open(dir)?;
    let attach = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: fd.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}

#[cfg(test)]
pub(super) fn attach_for_test(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    attach(dir, &program(rules))
}
