//! The extended entry points of the library, which a soft device has too.

use std::ptr;

use rdma_sys::inlines::{
    ibv_cq_ex_to_cq, ibv_create_cq_ex, ibv_create_qp_ex, ibv_end_poll, ibv_query_device_ex,
    ibv_start_poll, ibv_wr_abort, ibv_wr_rdma_write_imm, ibv_wr_set_sge, ibv_wr_start,
    verbs_get_ctx,
};
use rdma_sys::libraries;
use rdma_sys::types::{
    IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, IBV_QP_INIT_ATTR_PD,
    IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, IBV_QPT_RC, IBV_WC_EX_WITH_BYTE_LEN, IBV_WC_EX_WITH_IMM,
    ibv_cq_init_attr_ex, ibv_device_attr_ex, ibv_poll_cq_attr, ibv_qp_init_attr_ex,
};

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn extended_queues_are_created_built_for_and_polled() {
    let verbs = &libraries().unwrap().verbs;
    // SAFETY: each object is made for the next, used by this thread alone, and freed once in the
    // reverse order; the structures hold integers and raw pointers, for which zeros are values.
    unsafe {
        let list = verbs.ibv_get_device_list(ptr::null_mut());
        let context = verbs.ibv_open_device(*list);
        assert!(!context.is_null());
        assert!(!verbs_get_ctx(context).is_null(), "a context of the old kind");
        let mut attributes: ibv_device_attr_ex = std::mem::zeroed();
        assert_eq!(ibv_query_device_ex(verbs, context, ptr::null(), &mut attributes), 0);
        assert!(attributes.orig_attr.max_qp > 0);

        let mut wanted: ibv_cq_init_attr_ex = std::mem::zeroed();
        wanted.cqe = 16;
        wanted.wc_flags = u64::from(IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_IMM);
        let cq = ibv_create_cq_ex(context, &mut wanted);
        assert!(!cq.is_null(), "{}", std::io::Error::last_os_error());

        let domain = verbs.ibv_alloc_pd(context);
        let mut wanted: ibv_qp_init_attr_ex = std::mem::zeroed();
        wanted.qp_type = IBV_QPT_RC;
        wanted.send_cq = ibv_cq_ex_to_cq(cq);
        wanted.recv_cq = ibv_cq_ex_to_cq(cq);
        wanted.cap.max_send_wr = 4;
        wanted.cap.max_recv_wr = 4;
        wanted.cap.max_send_sge = 1;
        wanted.cap.max_recv_sge = 1;
        wanted.pd = domain;
        wanted.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        wanted.send_ops_flags =
            u64::from(IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM);
        let pair = ibv_create_qp_ex(verbs, context, &mut wanted);
        assert!(!pair.is_null(), "{}", std::io::Error::last_os_error());

        let builder = verbs.ibv_qp_to_qp_ex(pair);
        ibv_wr_start(builder);
        (*builder).wr_id = 1;
        ibv_wr_rdma_write_imm(builder, 1, 0, 2);
        ibv_wr_set_sge(builder, 3, 0, 8);
        ibv_wr_abort(builder);

        let mut polling: ibv_poll_cq_attr = std::mem::zeroed();
        let found = ibv_start_poll(cq, &mut polling);
        if found == 0 {
            ibv_end_poll(cq);
        }
        assert_ne!(found, 0, "what was aborted completed");

        assert_eq!(verbs.ibv_destroy_qp(pair), 0);
        assert_eq!(verbs.ibv_dealloc_pd(domain), 0);
        assert_eq!(verbs.ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
        assert_eq!(verbs.ibv_close_device(context), 0);
        verbs.ibv_free_device_list(list);
    }
}
