//! What RDMA there is.

use std::net::{IpAddr, Ipv6Addr};

use rdma_sys::inlines::ibv_query_gid_table;
use rdma_sys::types::{
    IBV_DEVICE_MEM_WINDOW_TYPE_2A, IBV_DEVICE_MEM_WINDOW_TYPE_2B, IBV_GID_TYPE_IB,
    IBV_GID_TYPE_ROCE_V1, IBV_LINK_LAYER_ETHERNET, IBV_LINK_LAYER_INFINIBAND, IBV_ODP_SUPPORT,
    IBV_PORT_ACTIVE, IBV_PORT_ACTIVE_DEFER, IBV_PORT_ARMED, IBV_PORT_DOWN, IBV_PORT_INIT,
    ibv_device, ibv_device_attr, ibv_gid_entry, ibv_port_attr,
};

use crate::verbs::device::{Device, Listed, driver_of, loaded, mtu_bytes, name_of};
use crate::verbs::error::{NicError, Unavailable};
use crate::verbs::queue::device_writes_in_order;

/// An RDMA device.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeviceInfo {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// The kernel's driver.
    pub driver: String,
    /// Version of its firmware; empty if it has none.
    pub firmware: String,
    /// Its number in the world.
    pub guid: u64,
    /// PCI vendor.
    pub vendor: u32,
    /// The vendor's number for the part.
    pub part: u32,
    /// Bytes of the largest region.
    pub max_mr_bytes: u64,
    /// Regions.
    pub max_mr: u32,
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests in a queue.
    pub max_qp_wr: u32,
    /// Pieces in a work request.
    pub max_sge: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Completions in a queue.
    pub max_cqe: u32,
    /// Protection domains.
    pub max_pd: u32,
    /// Shared receive queues.
    pub max_srq: u32,
    /// Windows.
    pub max_mw: u32,
    /// READs that a queue pair answers at once.
    pub max_rd_atom: u32,
    /// READs that a queue pair issues at once.
    pub max_init_rd_atom: u32,
    /// Windows of type 2A.
    pub windows_2a: bool,
    /// Windows of type 2B: those that this crate uses.
    pub windows_2b: bool,
    /// Whether it holds a window to its own range. Where not, this crate gives each bind a region
    /// of its own, so that nothing outside is reached; it then costs a registration.
    pub bounds_windows: bool,
    /// Registration without pinning.
    pub odp: bool,
    /// A bit for each page size.
    pub page_sizes: u64,
    /// Its ports.
    pub ports: Vec<PortInfo>,
    /// What could not be found out about it, and why.
    pub trouble: Option<String>,
    /// Whether the bytes of a WRITE become visible in order; `None` if it could not be asked.
    pub in_order: Option<InOrder>,
}

/// What a device promises about the order in which the bytes of a WRITE become visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InOrder {
    /// The whole message, first byte to last.
    WholeMessage,
    /// Nothing: only a completion says that they are there.
    NotPromised,
}

/// A port of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Its number, from 1.
    pub number: u8,
    /// Whether traffic can pass.
    pub state: PortState,
    /// Bytes of payload in a packet, now.
    pub mtu: u32,
    /// Bytes of payload in a packet, at most.
    pub mtu_max: u32,
    /// What it is plugged into.
    pub link: Link,
    /// The addresses it has, with the places where they are.
    pub gids: Vec<GidInfo>,
    /// Its local id on an InfiniBand subnet.
    pub lid: u16,
}

/// State of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortState {
    /// No link.
    Down,
    /// Link, not yet set up by a subnet manager.
    Init,
    /// Set up, not yet opened for traffic.
    Armed,
    /// Traffic passes.
    Active,
    /// Active, with a link that is down for a moment.
    ActiveDefer,
    /// Something this version does not know.
    Unknown(u32),
}

/// What a port is plugged into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// RoCE or iWARP.
    Ethernet,
    /// InfiniBand.
    InfiniBand,
    /// Something this version does not know.
    Unknown(u8),
}

/// An address of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GidInfo {
    /// Where in the port's table.
    pub index: u32,
    /// The address.
    pub gid: [u8; 16],
    /// How packets that use it are made.
    pub kind: GidKind,
    /// The network interface it belongs to.
    pub interface: Option<String>,
    /// The IP address that it stands for; of RoCE version 2 only.
    pub ip: Option<IpAddr>,
}

/// How packets of an address are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GidKind {
    /// InfiniBand.
    Infiniband,
    /// RoCE version 1: Ethernet frames, not routed.
    RoceV1,
    /// RoCE version 2: UDP.
    RoceV2,
}

/// All devices, each opened, asked and closed. What one of them does not answer is told in its
/// [`trouble`](DeviceInfo::trouble).
pub fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    let verbs = &loaded()?.verbs;
    let listed = Listed::new(verbs)?;
    let mut found = Vec::new();
    for raw in listed.devices() {
        // SAFETY: the list lives on.
        found.push(unsafe { look_at(verbs, raw) });
    }
    if found.is_empty() { Err(Unavailable::NoDevice) } else { Ok(found) }
}

/// The IP addresses that devices have, with the devices' names.
pub(crate) fn addresses() -> Result<Vec<(IpAddr, String)>, Unavailable> {
    let mut known = Vec::new();
    for device in devices()? {
        let gids = device.ports.iter().flat_map(|port| &port.gids);
        known.extend(gids.filter_map(|gid| Some((gid.ip?, device.name.clone()))));
    }
    known.dedup();
    Ok(known)
}

/// # Safety
/// `raw` is in a list that was not freed.
unsafe fn look_at(verbs: &'static rdma_sys::Verbs, raw: *mut ibv_device) -> DeviceInfo {
    // SAFETY: the caller vouches for `raw`.
    let (name, guid) = unsafe { (name_of(verbs, raw), verbs.ibv_get_device_guid(raw)) };
    let mut info = DeviceInfo { name, guid: u64::from_be(guid), ..DeviceInfo::default() };
    info.driver = driver_of(&info.name);
    // SAFETY: the caller vouches for `raw`.
    let asked = unsafe { Device::open(verbs, raw) }.and_then(|device| ask(&device, &mut info));
    info.trouble = asked.err().map(|error| error.to_string());
    info
}

fn ask(device: &Device, info: &mut DeviceInfo) -> Result<(), NicError> {
    let attributes = device.attributes()?;
    fill_in(info, &attributes.orig_attr);
    info.bounds_windows = device.bounds_windows();
    info.odp = attributes.odp_caps.general_caps & u64::from(IBV_ODP_SUPPORT) != 0;
    info.in_order = device_writes_in_order(device)
        .map(|whole| if whole { InOrder::WholeMessage } else { InOrder::NotPromised });
    let mut rooms = 0;
    for number in 1..=attributes.orig_attr.phys_port_cnt {
        let port = device.port(number)?;
        rooms += usize::try_from(port.gid_tbl_len).unwrap_or(0);
        info.ports.push(describe_port(number, &port));
    }
    for entry in gid_table(device, rooms)? {
        let port = info.ports.iter_mut().find(|p| u32::from(p.number) == entry.port_num);
        if let Some(port) = port {
            port.gids.push(describe_gid(&entry));
        }
    }
    Ok(())
}

fn fill_in(info: &mut DeviceInfo, from: &ibv_device_attr) {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    info.firmware = text(&from.fw_ver.map(|byte| byte as u8));
    info.vendor = from.vendor_id;
    info.part = from.vendor_part_id;
    info.max_mr_bytes = from.max_mr_size;
    info.max_mr = count(from.max_mr);
    info.max_qp = count(from.max_qp);
    info.max_qp_wr = count(from.max_qp_wr);
    info.max_sge = count(from.max_sge);
    info.max_cq = count(from.max_cq);
    info.max_cqe = count(from.max_cqe);
    info.max_pd = count(from.max_pd);
    info.max_srq = count(from.max_srq);
    info.max_mw = count(from.max_mw);
    info.max_rd_atom = count(from.max_qp_rd_atom);
    info.max_init_rd_atom = count(from.max_qp_init_rd_atom);
    info.windows_2a = from.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A != 0;
    info.windows_2b = from.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B != 0;
    info.page_sizes = from.page_size_cap;
}

fn describe_port(number: u8, port: &ibv_port_attr) -> PortInfo {
    PortInfo {
        number,
        state: match port.state {
            IBV_PORT_DOWN => PortState::Down,
            IBV_PORT_INIT => PortState::Init,
            IBV_PORT_ARMED => PortState::Armed,
            IBV_PORT_ACTIVE => PortState::Active,
            IBV_PORT_ACTIVE_DEFER => PortState::ActiveDefer,
            other => PortState::Unknown(other),
        },
        mtu: mtu_bytes(port.active_mtu),
        mtu_max: mtu_bytes(port.max_mtu),
        link: match u32::from(port.link_layer) {
            IBV_LINK_LAYER_ETHERNET => Link::Ethernet,
            IBV_LINK_LAYER_INFINIBAND => Link::InfiniBand,
            _ => Link::Unknown(port.link_layer),
        },
        gids: Vec::new(),
        lid: port.lid,
    }
}

/// The valid entries of all ports' tables, which have `rooms` places together.
fn gid_table(device: &Device, rooms: usize) -> Result<Vec<ibv_gid_entry>, NicError> {
    // SAFETY: the structure holds integers and arrays of them, for which zeros are values.
    let mut table = vec![unsafe { std::mem::zeroed::<ibv_gid_entry>() }; rooms];
    if rooms == 0 {
        return Ok(table);
    }
    // SAFETY: the device is open and the table has as many places.
    let count = unsafe {
        let into = table.as_mut_ptr();
        ibv_query_gid_table(device.verbs(), device.context(), into, rooms, 0)
    };
    match usize::try_from(count) {
        Ok(count) => {
            table.truncate(count);
            Ok(table)
        }
        Err(_) => {
            let object = format!("{rooms} places of {}", device.name());
            Err(NicError::number("ibv_query_gid_table", object, -count as i32))
        }
    }
}

fn describe_gid(entry: &ibv_gid_entry) -> GidInfo {
    // SAFETY: both members of the union are 16 bytes of integers.
    let gid = unsafe { entry.gid.raw };
    let kind = match entry.gid_type {
        IBV_GID_TYPE_IB => GidKind::Infiniband,
        IBV_GID_TYPE_ROCE_V1 => GidKind::RoceV1,
        _ => GidKind::RoceV2,
    };
    let interface = (entry.ndev_ifindex != 0)
        .then(|| nix::net::if_::if_indextoname(entry.ndev_ifindex).ok())
        .flatten()
        .map(|name| name.to_string_lossy().into_owned());
    GidInfo { index: entry.gid_index, gid, kind, interface, ip: ip_of(kind, gid) }
}

/// The IP address that a GID stands for.
fn ip_of(kind: GidKind, gid: [u8; 16]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(gid);
    (kind == GidKind::RoceV2).then(|| v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_v4_gid_of_roce_v2_is_shown_as_v4() {
        let mut gid = [0; 16];
        gid[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(ip_of(GidKind::RoceV2, gid), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(ip_of(GidKind::RoceV1, gid), None);
        gid = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(ip_of(GidKind::RoceV2, gid), Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn a_machine_without_rdma_says_why() {
        if let Err(reason) = devices() {
            assert!(reason.to_string().starts_with("no RDMA here: "), "{reason}");
        }
    }
}
