//! Sizes, offsets and numbers of the bindings, compared with what a C compiler makes of the
//! installed headers. Where there is no compiler or no header, it says that it did not run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;
use std::process::{Command, Output};

use rdma_sys::types::*;

/// C's words for a number, and the number that the bindings have.
type Facts = Vec<(String, u64)>;

const HEADERS: &str = "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\n\
                       #include <rdma/rdma_cma.h>\n";

macro_rules! c_name {
    ($first:ident $(. $more:ident)* as $name:literal) => {
        $name.to_owned()
    };
    ($first:ident $(. $more:ident)*) => {
        [stringify!($first) $(, stringify!($more))*].join(".")
    };
}

macro_rules! layouts {
    ($($structure:ident { $($($field:ident).+ $(as $name:literal)?),+ $(,)? })*) => {{
        let mut facts = Facts::new();
        $(
            let structure = concat!("struct ", stringify!($structure));
            facts.push((format!("sizeof({structure})"), size_of::<$structure>() as u64));
            $(
                let field = c_name!($($field).+ $(as $name)?);
                let offset = offset_of!($structure, $($field).+) as u64;
                facts.push((format!("offsetof({structure}, {field})"), offset));
            )+
        )*
        facts
    }};
}

macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name).to_owned(), u64::from($name))),*]
    };
}

#[rustfmt::skip] // A list, in lines as full as they can be.
fn layouts() -> Facts {
    layouts! {
        ibv_sge { addr, length, lkey }
        ibv_send_wr { wr_id, next, sg_list, num_sge, opcode, send_flags,
            __bindgen_anon_1 as "imm_data", wr.rdma.remote_addr, wr.rdma.rkey, wr.atomic.swap,
            wr.ud.remote_qkey, qp_type.xrc.remote_srqn, __bindgen_anon_2 as "bind_mw" }
        ibv_recv_wr { wr_id, next, sg_list, num_sge }
        ibv_wc { wr_id, status, opcode, vendor_err, byte_len,
            __bindgen_anon_1 as "imm_data", qp_num, src_qp, wc_flags, pkey_index,
            slid, sl, dlid_path_bits }
        ibv_mr { context, pd, addr, length, handle, lkey, rkey }
        ibv_mw { context, pd, rkey, handle, type_ as "type" }
        ibv_mw_bind_info { mr, addr, length, mw_access_flags }
        ibv_mw_bind { wr_id, send_flags, bind_info }
        ibv_pd { context, handle }
        ibv_qp { context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type,
            mutex, cond, events_completed }
        ibv_qp_ex { qp_base, comp_mask, wr_id, wr_flags, wr_atomic_cmp_swp, wr_atomic_fetch_add,
            wr_bind_mw, wr_local_inv, wr_rdma_read, wr_rdma_write, wr_rdma_write_imm, wr_send,
            wr_send_imm, wr_send_inv, wr_send_tso, wr_set_ud_addr, wr_set_xrc_srqn,
            wr_set_inline_data, wr_set_inline_data_list, wr_set_sge, wr_set_sge_list, wr_start,
            wr_complete, wr_abort, wr_atomic_write }
        ibv_cq { context, channel, cq_context, handle, cqe, mutex, cond, comp_events_completed,
            async_events_completed }
        ibv_cq_ex { context, channel, cq_context, handle, cqe, mutex, cond, comp_events_completed,
            async_events_completed, comp_mask, status, wr_id, start_poll, next_poll, end_poll,
            read_opcode, read_vendor_err, read_byte_len, read_imm_data, read_qp_num, read_src_qp,
            read_wc_flags, read_slid, read_sl, read_dlid_path_bits, read_completion_ts, read_cvlan,
            read_flow_tag, read_tm_info, read_completion_wallclock_ns }
        ibv_cq_init_attr_ex { cqe, cq_context, channel, comp_vector, wc_flags, comp_mask, flags,
            parent_domain }
        ibv_poll_cq_attr { comp_mask }
        ibv_srq { context, srq_context, pd, handle, mutex, cond, events_completed }
        ibv_srq_attr { max_wr, max_sge, srq_limit }
        ibv_srq_init_attr { srq_context, attr }
        ibv_srq_init_attr_ex { srq_context, attr, comp_mask, srq_type, pd, xrcd, cq, tm_cap }
        ibv_comp_channel { context, fd, refcnt }
        ibv_context { device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat }
        ibv_context_ops { _compat_query_device, _compat_query_port, _compat_alloc_pd,
            _compat_dealloc_pd, _compat_reg_mr, _compat_rereg_mr, _compat_dereg_mr, alloc_mw,
            bind_mw, dealloc_mw, _compat_create_cq, poll_cq, req_notify_cq, _compat_cq_event,
            _compat_resize_cq, _compat_destroy_cq, _compat_create_srq, _compat_modify_srq,
            _compat_query_srq, _compat_destroy_srq, post_srq_recv, _compat_create_qp,
            _compat_query_qp, _compat_modify_qp, _compat_destroy_qp, post_send, post_recv,
            _compat_create_ah, _compat_destroy_ah, _compat_attach_mcast, _compat_detach_mcast,
            _compat_async_event }
        verbs_context { query_port, advise_mr, alloc_null_mr, read_counters,
            attach_counters_point_flow, create_counters, destroy_counters, reg_dm_mr, alloc_dm,
            free_dm, modify_flow_action_esp, destroy_flow_action, create_flow_action_esp,
            modify_qp_rate_limit, alloc_parent_domain, dealloc_td, alloc_td, modify_cq,
            post_srq_ops, destroy_rwq_ind_table, create_rwq_ind_table, destroy_wq, modify_wq,
            create_wq, query_rt_values, create_cq_ex, priv_ as "priv", query_device_ex,
            ibv_destroy_flow,
            ABI_placeholder2, ibv_create_flow, ABI_placeholder1, open_qp, create_qp_ex, get_srq_num,
            create_srq_ex, open_xrcd, close_xrcd, _ABI_placeholder3, sz, context }
        ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
        ibv_qp_init_attr_ex { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all,
            comp_mask, pd, xrcd, create_flags, max_tso_header, rwq_ind_tbl, rx_hash_conf,
            source_qpn, send_ops_flags }
        ibv_qp_attr { qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn,
            dest_qp_num, qp_access_flags, cap, ah_attr, alt_ah_attr, pkey_index, alt_pkey_index,
            en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer,
            port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit }
        ibv_ah_attr { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
        ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        ibv_device { _ops, node_type, transport_type, name, dev_name, dev_path, ibdev_path }
        ibv_device_attr { fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap, vendor_id,
            vendor_part_id, hw_ver, max_qp, max_qp_wr, device_cap_flags, max_sge, max_sge_rd,
            max_cq, max_cqe, max_mr, max_pd, max_qp_rd_atom, max_ee_rd_atom, max_res_rd_atom,
            max_qp_init_rd_atom, max_ee_init_rd_atom, atomic_cap, max_ee, max_rdd, max_mw,
            max_raw_ipv6_qp, max_raw_ethy_qp, max_mcast_grp, max_mcast_qp_attach,
            max_total_mcast_qp_attach, max_ah, max_fmr, max_map_per_fmr, max_srq, max_srq_wr,
            max_srq_sge, max_pkeys, local_ca_ack_delay, phys_port_cnt }
        ibv_device_attr_ex { orig_attr, comp_mask, odp_caps, completion_timestamp_mask,
            hca_core_clock, device_cap_flags_ex, tso_caps, rss_caps, max_wq_type_rq,
            packet_pacing_caps, raw_packet_caps, tm_caps, cq_mod_caps, max_dm_size, pci_atomic_caps,
            xrc_odp_caps, phys_port_cnt_ex }
        ibv_odp_caps { general_caps, per_transport_caps }
        ibv_port_attr { state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz,
            bad_pkey_cntr, qkey_viol_cntr, pkey_tbl_len, lid, sm_lid, lmc, max_vl_num, sm_sl,
            subnet_timeout, init_type_reply, active_width, active_speed, phys_state, link_layer,
            flags, port_cap_flags2 }
        ibv_gid_entry { gid, gid_index, port_num, gid_type, ndev_ifindex }
        ibv_data_buf { addr, length }
        rdma_event_channel { fd }
        rdma_cm_id { verbs, channel, context, qp, route, ps, port_num, event, send_cq_channel,
            send_cq, recv_cq_channel, recv_cq, srq, pd, qp_type }
        rdma_cm_event { id, listen_id, event, status, param.conn.qp_num, param.ud.qkey }
        rdma_conn_param { private_data, private_data_len, responder_resources, initiator_depth,
            flow_control, retry_count, rnr_retry_count, srq, qp_num }
        rdma_route { addr, path_rec, num_paths }
        rdma_addr { __bindgen_anon_1 as "src_addr", __bindgen_anon_2 as "dst_addr", addr }
        sockaddr_in { sin_family, sin_port, sin_addr, sin_zero }
        sockaddr_in6 { sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id }
    }
}

fn numbers() -> Facts {
    numbers![
        IBV_ACCESS_LOCAL_WRITE,
        IBV_ACCESS_REMOTE_WRITE,
        IBV_ACCESS_REMOTE_READ,
        IBV_ACCESS_MW_BIND,
        IBV_ACCESS_OPTIONAL_FIRST,
        IBV_DEVICE_MEM_WINDOW_TYPE_2A,
        IBV_DEVICE_MEM_WINDOW_TYPE_2B,
        IBV_MW_TYPE_1,
        IBV_MW_TYPE_2,
        IBV_ODP_SUPPORT,
        IBV_QPT_RC,
        IBV_QPS_INIT,
        IBV_QPS_RTR,
        IBV_QPS_RTS,
        IBV_QPS_ERR,
        IBV_QP_STATE,
        IBV_QP_ACCESS_FLAGS,
        IBV_QP_INIT_ATTR_PD,
        IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        IBV_SEND_FENCE,
        IBV_SEND_SIGNALED,
        IBV_SEND_INLINE,
        IBV_SRQ_LIMIT,
        IBV_SRQ_INIT_ATTR_PD,
        IBV_SRQ_INIT_ATTR_TYPE,
        IBV_WC_SUCCESS,
        IBV_WC_REM_ACCESS_ERR,
        IBV_WC_RETRY_EXC_ERR,
        IBV_WC_WR_FLUSH_ERR,
        IBV_WC_WITH_IMM,
        IBV_WC_EX_WITH_BYTE_LEN,
        IBV_WR_RDMA_WRITE,
        IBV_WR_RDMA_WRITE_WITH_IMM,
        IBV_WR_RDMA_READ,
        IBV_WR_LOCAL_INV,
        IBV_WR_BIND_MW,
        IBV_GID_TYPE_ROCE_V2,
        RDMA_PS_TCP,
        RDMA_CM_EVENT_CONNECT_REQUEST,
        RDMA_CM_EVENT_CONNECT_RESPONSE,
        RDMA_CM_EVENT_ESTABLISHED,
        RDMA_CM_EVENT_DISCONNECTED,
        RDMA_CM_EVENT_REJECTED,
        RDMA_CM_EVENT_DEVICE_REMOVAL,
    ]
}

fn compile(folder: &Path, name: &str, source: &str) -> std::io::Result<Output> {
    let (from, to) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&from, source)?;
    Command::new("cc").arg("-o").arg(&to).arg(&from).output()
}

/// What C says of each, or `None` where it cannot be asked.
fn ask_c(facts: &Facts) -> Option<BTreeMap<String, u64>> {
    let folder = std::env::temp_dir().join(format!("rdma-sys-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let empty = format!("{HEADERS}int main(void) {{ return 0; }}\n");
    if !compile(&folder, "empty", &empty).is_ok_and(|output| output.status.success()) {
        std::fs::remove_dir_all(&folder).unwrap();
        return None;
    }
    let mut source = format!("{HEADERS}int main(void) {{\n");
    for (name, _) in facts {
        writeln!(source, "printf(\"{name}=%llu\\n\", (unsigned long long)({name}));").unwrap();
    }
    source.push_str("return 0; }\n");
    let compiled = compile(&folder, "facts", &source).unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(folder.join("facts")).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let parsed = said.lines().map(|line| {
        let (name, number) = line.split_once('=').expect("the program prints an equals sign");
        (name.to_owned(), number.parse().expect("the program prints a number behind it"))
    });
    Some(parsed.collect())
}

#[test]
fn the_bindings_lie_in_memory_as_c_says() {
    let mut facts = layouts();
    facts.extend(numbers());
    let range = u64::from(rdma_sys::inlines::IBV_ACCESS_OPTIONAL_RANGE);
    facts.push(("(unsigned int)IBV_ACCESS_OPTIONAL_RANGE".to_owned(), range));
    let Some(c) = ask_c(&facts) else {
        println!("no cc, or no headers of libibverbs-dev and librdmacm-dev: nothing was compared");
        return;
    };
    assert_eq!(c.len(), facts.len());
    let wrong: Vec<_> = facts.iter().filter(|(name, number)| c[name] != *number).collect();
    assert!(wrong.is_empty(), "the bindings differ from C in {wrong:?}");
    println!("{} sizes, offsets and numbers are as in C", facts.len());
}
