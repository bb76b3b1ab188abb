//! System calls that are refused, as a sandbox refuses them.

/// From now on this system call of this thread (if its argument of that index is that, where one is given) is
/// answered so; and of those threads and processes that it starts.
pub fn filter(call: libc::c_long, argument: Option<(u32, u32)>, answer: u32) {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    // The system call's number is the first word; its arguments begin at byte 16, eight bytes each.
    let mut filter = vec![statement(LOAD, 0)];
    match argument {
        None => filter.push(jump(call as u32, 0, 1)),
        Some((index, value)) => filter.extend([
            jump(call as u32, 0, 3),
            statement(LOAD, 16 + 8 * index),
            jump(value, 0, 1),
        ]),
    }
    filter.extend([
        statement(ANSWER, answer),
        statement(ANSWER, libc::SECCOMP_RET_ALLOW),
    ]);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a promise of this thread about itself.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(promised, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a filter that lives during the call, on this thread alone.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
