//! When the inlines call an extended operation and when they do not, on contexts made up for it.

use std::mem::{offset_of, zeroed};
use std::os::raw::{c_int, c_uint, c_void};
use std::ptr;

use rdma_sys::Verbs;
use rdma_sys::inlines::*;
use rdma_sys::types::*;

/// A context as libibverbs makes one: all ones, the size of the whole, and no operation.
fn extended() -> Box<verbs_context> {
    // SAFETY: the structure holds integers, pointers and optional functions: zeros are values.
    let mut around: Box<verbs_context> = Box::new(unsafe { zeroed() });
    around.sz = size_of::<verbs_context>();
    around.context.abi_compat = usize::MAX as *mut c_void;
    around
}

/// The context inside, as a pointer that may be followed back to what is around it.
fn inside(around: &mut verbs_context) -> *mut ibv_context {
    let around: *mut verbs_context = around;
    // SAFETY: the context is a field of the structure.
    unsafe { &raw mut (*around).context }
}

/// A table with nothing in it. What a test calls it fills in.
fn empty_table() -> Verbs {
    // SAFETY: the C library is loaded already.
    unsafe { Verbs::new("libc.so.6") }.expect("every program has the C library")
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

const MADE: usize = 0x1234;

unsafe extern "C" fn make_pair(_: *mut ibv_context, _: *mut ibv_qp_init_attr_ex) -> *mut ibv_qp {
    ptr::without_provenance_mut(MADE)
}

unsafe extern "C" fn make_cq(_: *mut ibv_context, _: *mut ibv_cq_init_attr_ex) -> *mut ibv_cq_ex {
    ptr::without_provenance_mut(MADE)
}

#[test]
fn a_context_is_extended_only_if_its_mark_is_all_ones() {
    let mut around = extended();
    let expected: *mut verbs_context = &mut *around;
    // SAFETY: the context is inside of `around`, which lives on.
    assert_eq!(unsafe { verbs_get_ctx(inside(&mut around)) }, expected);
    for mark in [0, 1, u32::MAX as usize, usize::MAX - 1, usize::MAX >> 1] {
        around.context.abi_compat = mark as *mut c_void;
        // SAFETY: as above.
        assert!(unsafe { verbs_get_ctx(inside(&mut around)) }.is_null(), "{mark:#x}");
    }
}

#[test]
fn an_operation_is_used_only_if_the_structure_has_it_and_it_is_filled() {
    // SAFETY: the structure holds integers, pointers and arrays of them: zeros are values.
    let mut wanted: ibv_cq_init_attr_ex = unsafe { zeroed() };
    let mut ask = |around: &mut verbs_context| {
        // SAFETY: the context is inside of `around`, which lives on, and `wanted` is whole.
        unsafe { ibv_create_cq_ex(inside(around), &mut wanted) as usize }
    };
    let mut around = extended();
    assert_eq!((ask(&mut around), errno()), (0, EOPNOTSUPP), "no operation");

    around.create_cq_ex = Some(make_cq);
    assert_eq!(ask(&mut around), MADE);

    let enough = size_of::<verbs_context>() - offset_of!(verbs_context, create_cq_ex);
    around.sz = enough;
    assert_eq!(ask(&mut around), MADE, "a structure that begins with this operation");
    around.sz = enough - 1;
    assert_eq!((ask(&mut around), errno()), (0, EOPNOTSUPP), "one byte short");

    around.sz = size_of::<verbs_context>();
    around.context.abi_compat = u32::MAX as usize as *mut c_void;
    assert_eq!((ask(&mut around), errno()), (0, EOPNOTSUPP), "not extended");
}

#[test]
fn a_queue_pair_goes_the_ordinary_way_if_no_more_than_a_domain_is_asked_for() {
    unsafe extern "C" fn ordinary(_: *mut ibv_pd, _: *mut ibv_qp_init_attr) -> *mut ibv_qp {
        ptr::without_provenance_mut(1)
    }
    let mut verbs = empty_table();
    verbs.ibv_create_qp = Ok(ordinary);
    let mut around = extended();
    around.create_qp_ex = Some(make_pair);
    // SAFETY: the structure holds integers and pointers: zeros are values.
    let mut wanted: ibv_qp_init_attr_ex = unsafe { zeroed() };
    let mut ask = |mask: u32, around: &mut verbs_context| {
        wanted.comp_mask = mask;
        // SAFETY: the context is inside of `around`, which lives on, and `wanted` is whole.
        unsafe { ibv_create_qp_ex(&verbs, inside(around), &mut wanted) as usize }
    };
    let with_operations = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    assert_eq!(ask(IBV_QP_INIT_ATTR_PD, &mut around), 1);
    assert_eq!(ask(with_operations, &mut around), MADE);
    assert_eq!(ask(0, &mut around), MADE, "without a domain it is no ordinary pair");
    around.context.abi_compat = ptr::null_mut();
    assert_eq!((ask(with_operations, &mut around), errno()), (0, EOPNOTSUPP));
    assert_eq!(ask(IBV_QP_INIT_ATTR_PD, &mut around), 1);
}

#[test]
fn a_shared_receive_queue_goes_the_ordinary_way_if_it_is_a_basic_one() {
    unsafe extern "C" fn ordinary(_: *mut ibv_pd, _: *mut ibv_srq_init_attr) -> *mut ibv_srq {
        ptr::without_provenance_mut(1)
    }
    let mut verbs = empty_table();
    verbs.ibv_create_srq = Ok(ordinary);
    let mut around = extended();
    // SAFETY: the structure holds integers and pointers: zeros are values.
    let mut wanted: ibv_srq_init_attr_ex = unsafe { zeroed() };
    let mut ask = |mask: u32, kind: ibv_srq_type| {
        (wanted.comp_mask, wanted.srq_type) = (mask, kind);
        // SAFETY: the context is inside of `around`, which lives on, and `wanted` is whole.
        unsafe { ibv_create_srq_ex(&verbs, inside(&mut around), &mut wanted) as usize }
    };
    let (pd, kind) = (IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE);
    assert_eq!(ask(pd, IBV_SRQT_XRC), 1, "the kind is not looked at");
    assert_eq!(ask(pd | kind, IBV_SRQT_BASIC), 1);
    assert_eq!((ask(pd | kind, IBV_SRQT_XRC), errno()), (0, EOPNOTSUPP));
    assert_eq!(ask(kind, IBV_SRQT_BASIC), 0, "no domain");
    assert_eq!(ask(pd | IBV_SRQ_INIT_ATTR_CQ, IBV_SRQT_BASIC), 0, "more than a basic one has");
}

type Address = *mut c_void;

unsafe extern "C" fn plain(_: *mut ibv_pd, _: Address, _: usize, _: c_int) -> *mut ibv_mr {
    ptr::without_provenance_mut(1)
}

unsafe extern "C" fn iova(_: *mut ibv_pd, _: Address, _: usize, _: u64, _: c_int) -> *mut ibv_mr {
    ptr::without_provenance_mut(2)
}

/// Returns the address under which it was to register.
unsafe extern "C" fn iova2(
    _: *mut ibv_pd,
    _: Address,
    _: usize,
    iova: u64,
    _: c_uint,
) -> *mut ibv_mr {
    iova as *mut ibv_mr
}

#[test]
fn optional_access_flags_go_through_the_newer_entry_only() {
    let mut verbs = empty_table();
    verbs.ibv_reg_mr = Ok(plain);
    verbs.ibv_reg_mr_iova = Ok(iova);
    verbs.ibv_reg_mr_iova2 = Ok(iova2);
    let (pd, memory) = (ptr::null_mut(), 0x7000 as Address);
    let ask = |access: u32| {
        // SAFETY: the functions above look at nothing.
        unsafe {
            let own = ibv_reg_mr(&verbs, pd, memory, 8, access) as usize;
            (own, ibv_reg_mr_iova(&verbs, pd, memory, 8, 0x99, access) as usize)
        }
    };
    assert_eq!(ask(0), (1, 2));
    assert_eq!(ask(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND), (1, 2));
    assert_eq!(ask(IBV_ACCESS_OPTIONAL_FIRST - 1), (1, 2));
    assert_eq!(ask(IBV_ACCESS_OPTIONAL_FIRST), (0x7000, 0x99));
    assert_eq!(ask(1 << 29), (0x7000, 0x99));
    assert_eq!(ask(1 << 30), (1, 2), "above the range");
}

unsafe extern "C" fn new_port(
    _: *mut ibv_context,
    _: u8,
    into: *mut ibv_port_attr,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller passes a whole structure, and its size.
    unsafe { (*into).lid = bytes as u16 };
    0
}

unsafe extern "C" fn old_port(
    _: *mut ibv_context,
    _: u8,
    into: *mut _compat_ibv_port_attr,
) -> c_int {
    // SAFETY: the old structure begins like the new one.
    unsafe { (*into.cast::<ibv_port_attr>()).state = IBV_PORT_ACTIVE };
    0
}

#[test]
fn a_port_is_asked_by_the_extended_operation_or_with_the_rest_zeroed() {
    let mut verbs = empty_table();
    verbs.ibv_query_port = Ok(old_port);
    let mut around = extended();
    around.query_port = Some(new_port);
    // SAFETY: the structure holds integers: zeros are values.
    let mut port: ibv_port_attr = unsafe { zeroed() };
    // SAFETY: the context is inside of `around`, which lives on, and `port` may be written.
    let mut ask = |around: &mut verbs_context| unsafe {
        port.flags = 0xff;
        assert_eq!(ibv_query_port(&verbs, inside(around), 1, &mut port), 0);
        (port.state, usize::from(port.lid), port.flags)
    };
    assert_eq!(ask(&mut around), (0, size_of::<ibv_port_attr>(), 0xff));
    around.query_port = None;
    assert_eq!(ask(&mut around), (IBV_PORT_ACTIVE, 0, 0));
}

unsafe extern "C" fn old_device(_: *mut ibv_context, into: *mut ibv_device_attr) -> c_int {
    // SAFETY: the caller passes a whole structure.
    unsafe { (*into).max_qp = 5 };
    0
}

unsafe extern "C" fn no_device(
    _: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    into: *mut ibv_device_attr_ex,
    _: usize,
) -> c_int {
    // SAFETY: the caller passes a whole structure, and an input that is null or whole.
    unsafe {
        (*into).max_dm_size = 7;
        if input.is_null() { EOPNOTSUPP } else { 13 }
    }
}

#[test]
fn a_device_without_extended_attributes_is_asked_for_the_ordinary_ones() {
    let mut verbs = empty_table();
    verbs.ibv_query_device = Ok(old_device);
    let mut around = extended();
    // SAFETY: the structures hold integers and arrays of them: zeros are values.
    let (mut found, mut input): (ibv_device_attr_ex, ibv_query_device_ex_input) =
        unsafe { (zeroed(), zeroed()) };
    // SAFETY: the context is inside of `around`, which lives on, and `found` may be written.
    let mut ask = |around: &mut verbs_context, input: *const ibv_query_device_ex_input| unsafe {
        found.comp_mask = 3;
        let result = ibv_query_device_ex(&verbs, inside(around), input, &mut found);
        (result, found.orig_attr.max_qp, found.comp_mask, found.max_dm_size)
    };
    assert_eq!(ask(&mut around, ptr::null()), (0, 5, 0, 0), "no operation");
    around.query_device_ex = Some(no_device);
    assert_eq!(ask(&mut around, ptr::null()), (0, 5, 0, 0), "one that is not supported");
    assert_eq!(ask(&mut around, &input).0, 13, "an error of its own is passed on");
    input.comp_mask = 1;
    assert_eq!(ask(&mut around, &input).0, EINVAL, "nobody knows this input");
}

#[test]
fn windows_need_the_operation_the_kind_and_the_domain() {
    let mut around = extended();
    // SAFETY: the structures hold integers and pointers: zeros are values.
    let (mut pd, mut other, mut mw, mut mr, mut bind): (
        ibv_pd,
        ibv_pd,
        ibv_mw,
        ibv_mr,
        ibv_mw_bind,
    ) = unsafe { (zeroed(), zeroed(), zeroed(), zeroed(), zeroed()) };
    unsafe extern "C" fn bound(_: *mut ibv_qp, _: *mut ibv_mw, _: *mut ibv_mw_bind) -> c_int {
        77
    }
    around.context.ops.bind_mw = Some(bound);
    let context = inside(&mut around);
    (pd.context, other.context, mw.context) = (context, context, context);
    // SAFETY: all of them live on, and point at each other as libibverbs would have it.
    unsafe {
        assert!(ibv_alloc_mw(&mut pd, IBV_MW_TYPE_2).is_null());
        assert_eq!(errno(), EOPNOTSUPP);
        mw.pd = &mut pd;
        mw.type_ = IBV_MW_TYPE_2;
        assert_eq!(ibv_bind_mw(ptr::null_mut(), &mut mw, &mut bind), EINVAL, "type 2");
        mw.type_ = IBV_MW_TYPE_1;
        assert_eq!(ibv_bind_mw(ptr::null_mut(), &mut mw, &mut bind), 77, "taking back");
        bind.bind_info.length = 1;
        assert_eq!(ibv_bind_mw(ptr::null_mut(), &mut mw, &mut bind), EINVAL, "bytes of nothing");
        mr.pd = &mut other;
        bind.bind_info.mr = &mut mr;
        assert_eq!(ibv_bind_mw(ptr::null_mut(), &mut mw, &mut bind), EPERM, "another domain");
        (*bind.bind_info.mr).pd = &mut pd;
        assert_eq!(ibv_bind_mw(ptr::null_mut(), &mut mw, &mut bind), 77);
    }
}

#[test]
fn a_key_moves_on_in_its_low_byte_only() {
    for (key, next) in [(0, 1), (0x1234_5600, 0x1234_5601), (0x1234_56ff, 0x1234_5600)] {
        assert_eq!(ibv_inc_rkey(key), next);
    }
    assert_eq!(ibv_inc_rkey(u32::MAX), 0xffff_ff00);
}

#[test]
fn the_fast_path_goes_through_the_contexts_operations() {
    unsafe extern "C" fn send(
        _: *mut ibv_qp,
        request: *mut ibv_send_wr,
        bad: *mut *mut ibv_send_wr,
    ) -> c_int {
        // SAFETY: the test passes both.
        unsafe { *bad = request };
        12
    }
    unsafe extern "C" fn polled(_: *mut ibv_cq, most: c_int, _: *mut ibv_wc) -> c_int {
        most
    }
    let mut around = extended();
    around.context.ops.post_send = Some(send);
    around.context.ops.poll_cq = Some(polled);
    // SAFETY: the structures hold integers, pointers and locks that are not used: zeros are values.
    let (mut pair, mut cq, mut request): (ibv_qp, ibv_cq, ibv_send_wr) =
        unsafe { (zeroed(), zeroed(), zeroed()) };
    (pair.context, cq.context) = (inside(&mut around), inside(&mut around));
    let mut bad = ptr::null_mut();
    // SAFETY: all of them live on, and the functions look at nothing else.
    unsafe {
        assert_eq!(ibv_post_send(&mut pair, &mut request, &mut bad), 12);
        assert_eq!(ibv_poll_cq(&mut cq, 9, ptr::null_mut()), 9);
    }
    assert!(ptr::eq(bad, &raw const request));
}
