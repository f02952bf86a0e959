#!/bin/busybox sh
# The first process of a guest: mounts what a tracer needs, loads the modules, runs one command, powers off.
# ttyS0 is the kernel's console, ttyS1 carries the command's output between marker lines, ttyS2 a tar of /out.
export PATH=/bin:/sbin HOME=/root TERM=dumb LANG=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname guest
ip link set lo up
read -r modules </etc/vm/modules
for module in $modules; do
	# Without the option it comes with a device that no scenario asked for.
	[ "$module" = dummy ] && set -- numdummies=0 || set --
	insmod "/lib/modules/$module.ko" "$@" || echo "init: module $module does not load" >/dev/console
done
if [ -e /etc/vm/shell ]; then
	echo "kernel $(uname -r), $(cut -d. -f1 /proc/uptime) s after power on; leave with 'exit'"
	setsid cttyhack /bin/sh
	poweroff -f
fi
if [ -e /etc/vm/system ]; then
	# A whole Debian on a disk, whose own init takes over. A unit of it runs the command when the rest is up.
	mkdir /system
	mount -t ext4 /dev/vda /system || { echo "init: the disk cannot be mounted" >/dev/console; poweroff -f; }
	cp -a /etc/vm /system/etc/
	cp /etc/vm/vm.service /system/etc/systemd/system/
	ln -s ../vm.service /system/etc/systemd/system/multi-user.target.wants/
	umount /run /tmp
	for mount in dev proc sys; do
		mount --move "/$mount" "/system/$mount"
	done
	exec switch_root /system /sbin/init
fi
. /etc/vm/run
