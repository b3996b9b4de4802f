//! Consoles, X and clocks of guests of other hypervisors.

use super::super::tests::small::{machine, planned};
use super::super::{Change, apply};
use crate::fs::Timestamp;

/// What is done, in lines; applied, it must leave nothing to plan.
fn shown(files: &[(&str, &str)]) -> String {
    let machine = machine(files);
    let (first, root) = planned(&machine);
    apply(&first, &root.tree, Timestamp::default()).unwrap();
    assert!(planned(&machine).0.is_empty(), "{:#?}", planned(&machine).0.actions);
    let mut shown = String::new();
    for action in &first.actions {
        let change = match &action.change {
            Change::Edit { diff, .. } => {
                diff.lines().filter(|line| line.starts_with(['-', '+'])).collect::<Vec<_>>().join("\n")
            }
            Change::Rename { to } => format!("=> {to}"),
            Change::Remove { .. } => "gone".to_owned(),
            other => panic!("{other:?}"),
        };
        shown.push_str(&format!("{}\n{change}\n", action.path));
    }
    for left in first.left.iter().filter(|left| !left.stops_boot) {
        shown.push_str(&format!("left {}: {}\n", left.path, left.what));
    }
    shown
}

#[test]
fn consoles_of_xen_become_the_serial_port() {
    let getty =
        "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service->/lib/systemd/system/serial-getty@.service";
    let files = [
        ("/boot/vmlinuz-1", ""),
        (
            "/boot/grub/grub.cfg",
            "menuentry 'a' {\n linux /boot/vmlinuz-1 root=UUID=R console=tty0 console=hvc0 crashkernel=256M\n}\n",
        ),
        ("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"console=hvc0 quiet\"\nGRUB_TERMINAL=console\n"),
        (getty, ""),
        (
            "/etc/inittab",
            "id:3:initdefault:\n#x0:345:respawn:/sbin/agetty hvc0\nx0:345:respawn:/sbin/agetty -L 9600 hvc0 linux\nx1:345:respawn:/sbin/agetty xvc0\n",
        ),
        ("/etc/securetty", "tty1\nhvc0\n"),
        ("/etc/init/hvc0.conf", "respawn\nexec /sbin/getty -8 38400 hvc0\n"),
    ];
    assert_eq!(
        shown(&files),
        "/boot/grub/grub.cfg
- linux /boot/vmlinuz-1 root=UUID=R console=tty0 console=hvc0 crashkernel=256M
+ linux /boot/vmlinuz-1 root=UUID=R console=tty0 console=ttyS0 crashkernel=256M
/etc/default/grub
-GRUB_CMDLINE_LINUX=\"console=hvc0 quiet\"
+GRUB_CMDLINE_LINUX=\"console=ttyS0 quiet\"
/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service
=> /etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service
/etc/inittab
-x0:345:respawn:/sbin/agetty -L 9600 hvc0 linux
-x1:345:respawn:/sbin/agetty xvc0
+x0:345:respawn:/sbin/agetty -L 9600 ttyS0 linux
+#x1:345:respawn:/sbin/agetty xvc0
/etc/securetty
+ttyS0
/etc/init/hvc0.conf
-exec /sbin/getty -8 38400 hvc0
+exec /sbin/getty -8 38400 ttyS0
"
    );
    // System V's init takes no longer names of lines than these, and busybox's takes them for consoles.
    for (line, expected) in [
        ("hvc0:2345:respawn:/sbin/getty 38400 hvc0", "hvc0:2345:respawn:/sbin/getty 38400 ttyS0"),
        ("hvc0::respawn:/sbin/getty -L hvc0 115200 vt100", "ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100"),
    ] {
        let expected = format!("/etc/inittab\n-{line}\n+{expected}\n");
        assert_eq!(shown(&[("/etc/inittab", &format!("{line}\n"))]), expected);
    }
    let both = [
        (getty, ""),
        (
            "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service->/lib/systemd/system/serial-getty@.service",
            "",
        ),
        ("/etc/inittab", "S0:345:respawn:/sbin/agetty ttyS0\nx0:345:respawn:/sbin/agetty hvc0\n"),
        ("/etc/securetty", "ttyS0\nhvc0\n"),
    ];
    assert_eq!(
        shown(&both),
        "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service
gone
/etc/inittab
-x0:345:respawn:/sbin/agetty hvc0
+#x0:345:respawn:/sbin/agetty hvc0
"
    );
}

const XORG: &str = "# made by vmware-config-tools\nSection \"Device\"\r\n    Identifier \"Card0\"\r\n    Driver     \"vmware\" # own\r\n    BusID      \"PCI:0:15:0\"\r\nEndSection\n\
    Section \"InputDevice\"\n Driver \"vmmouse\"\nEndSection\nSection \"Device\"\n Identifier \"other\"\n Driver \"dummy\"\n BusID \"PCI:1:0:0\"\nEndSection\n";

#[test]
fn x_gets_a_driver_for_the_card_that_there_is() {
    const VESA: (&str, &str) = ("/usr/lib64/xorg/modules/drivers/vesa_drv.so", "");
    const MODESETTING: (&str, &str) = ("/usr/lib/xorg/modules/drivers/modesetting_drv.so", "");
    let conf = ("/etc/X11/xorg.conf", XORG);
    let edits = |driver: &str| {
        format!(
            "/etc/X11/xorg.conf\n-    Driver     \"vmware\" # own\n-    BusID      \"PCI:0:15:0\"\n+    Driver     \"{driver}\" # own\n+#    BusID      \"PCI:0:15:0\"\n"
        )
    };
    assert_eq!(shown(&[conf, VESA]).replace('\r', ""), edits("vesa"));
    // The kernel has no driver that modesetting could use.
    assert_eq!(shown(&[conf, VESA, MODESETTING]).replace('\r', ""), edits("vesa"));
    let kernel = [("/boot/vmlinuz-5", ""), ("/lib/modules/5/modules.dep", "kernel/bochs.ko.xz:\n")];
    assert_eq!(shown(&[conf, VESA, MODESETTING, kernel[0], kernel[1]]).replace('\r', ""), edits("modesetting"));
    assert!(shown(&[conf]).starts_with("left /etc/X11/xorg.conf"));
    let part = ("/etc/X11/xorg.conf.d/20-x.conf", "Section \"Device\"\n driver \"FGLRX\"\nEndSection\n");
    assert_eq!(shown(&[part, VESA]), "/etc/X11/xorg.conf.d/20-x.conf\n- driver \"FGLRX\"\n+ driver \"vesa\"\n");
    for none in [
        "",
        "Section \"Device\"\n Driver \"modesetting\"\nEndSection\n",
        "Driver \"vmware\"\n",
        "Section \"Device\"\nDriver \"vmware\"",
        "\"\"\n\"",
        "Section\nDriver\nEndSection",
        "#Section \"Device\"\nDriver \"nvidia\"\nEndSection",
    ] {
        assert_eq!(shown(&[("/etc/X11/xorg.conf", none), VESA]), "", "{none}");
    }
}

#[test]
fn the_hardware_clock_keeps_what_the_guest_takes_it_for() {
    for (path, text, is_local) in [
        ("/etc/adjtime", "0.0 0 0\n0\nLOCAL\n", true),
        ("/etc/adjtime", "0.0 0 0\n0\nUTC\n", false),
        ("/etc/adjtime", "0.0 0 0\n", false),
        ("/etc/sysconfig/clock", "ZONE=\"Europe/Berlin\"\nUTC=false\n", true),
        ("/etc/sysconfig/clock", "UTC=true\n", false),
        ("/etc/sysconfig/clock", "HWCLOCK=\"--localtime\"\n", true),
        ("/etc/default/rcS", "UTC=no\n", true),
        ("/etc/conf.d/hwclock", "clock=\"local\"\n", true),
        ("/etc/conf.d/hwclock", "clock=\"UTC\"\n", false),
        ("/etc/hosts", "", false),
    ] {
        let machine = machine(&[(path, text)]);
        assert_eq!(planned(&machine).0.hardware.local_clock, is_local, "{path} {text}");
    }
    let files = [
        ("/boot/vmlinuz-1", ""),
        (
            "/boot/grub/grub.conf",
            "title a\n kernel /boot/vmlinuz-1 root=LABEL=/ divider=10 clocksource=acpi_pm notsc quiet\n",
        ),
    ];
    let left = shown(&files);
    for word in ["divider=10", "clocksource=acpi_pm", "notsc"] {
        assert!(left.contains(&format!("left /boot/grub/grub.conf: {word} on")), "{left}");
    }
}
