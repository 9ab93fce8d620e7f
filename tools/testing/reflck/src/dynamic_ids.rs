// SPDX-License-Identifier: GPL-2.0

//! The parser of dynamic IDs.

use crate::vfio::dynamic_id::DynamicId;
use kernel::error::code::EINVAL;

#[test]
fn ids_are_parsed_as_by_sscanf() {
    const NONE: &str = "ffffffff";

    for (text, expected) in [
        ("8086:10c9", ["8086", "10c9", NONE, NONE, "0", "0"]),
        ("8086:10C9:1:2", ["8086", "10c9", "1", "2", "0", "0"]),
        (
            "1:2:3:4:20000:ff0000",
            ["1", "2", "3", "4", "20000", "ff0000"],
        ),
        ("0x8086: 0X10c9", ["8086", "10c9", NONE, NONE, "0", "0"]),
        ("8086:10c9:", ["8086", "10c9", NONE, NONE, "0", "0"]),
        ("8086:10c9 :1", ["8086", "10c9", NONE, NONE, "0", "0"]),
        ("8086:10c9x:1", ["8086", "10c9", NONE, NONE, "0", "0"]),
        ("8086:10c9:1:z", ["8086", "10c9", "1", NONE, "0", "0"]),
        ("1:2:3:4:5:6:7", ["1", "2", "3", "4", "5", "6"]),
        ("ffffffff:0", [NONE, "0", NONE, NONE, "0", "0"]),
    ] {
        let [vendor, device, subvendor, subdevice, class, class_mask] =
            expected.map(|number| u32::from_str_radix(number, 16).unwrap());
        let expected = format!(
            "[{vendor:04x}:{device:04x}[{subvendor:04x}:{subdevice:04x}]] \
             class {class:#08x}/{class_mask:08x}"
        );
        assert_eq!(DynamicId::parse(text).unwrap().to_string(), expected);
    }
}

#[test]
fn ids_without_vendor_and_device_are_refused() {
    for text in [
        "",
        ":",
        "8086",
        "8086:",
        "8086 10c9",
        ":10c9",
        "x:1",
        "0x:1",
        "8086:x",
        "-1:2",
    ] {
        assert_eq!(DynamicId::parse(text), Err(EINVAL), "{text}");
    }
}

#[test]
fn ids_of_more_than_32_bits_are_refused() {
    for text in ["100000000:1", "1:123456789", "1:2:3:4:5:100000000"] {
        assert_eq!(DynamicId::parse(text), Err(EINVAL), "{text}");
    }
}

#[test]
fn ids_cover_devices() {
    for (text, expected) in [
        ("8086:10c9", true),
        ("8086:10ca", false),
        ("8087:10c9", false),
        ("ffffffff:ffffffff", true),
        ("8086:10c9:1:2", true),
        ("8086:10c9:2:2", false),
        ("8086:10c9:1:1", false),
        ("8086:10c9:1:2:20000:ff0000", true),
        ("8086:10c9:1:2:30000:ff0000", false),
    ] {
        let id = DynamicId::parse(text).unwrap();
        assert_eq!(
            id.covers([0x8086, 0x10c9, 1, 2], 0x02_0000),
            expected,
            "{text}"
        );
    }
}
