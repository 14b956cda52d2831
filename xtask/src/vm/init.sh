#!/bin/busybox sh
# Process 1 of a test machine: mounts what memtrace needs, runs /command, reports its status on
# the console and switches off. The layout of control groups comes from the kernel command line.

/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin HOME=/root TERM=dumb RUST_BACKTRACE=1
export MEMTRACE_BIN=/bin/memtrace MEMTRACE_WORKLOAD=/bin/memtrace-workload MEMTRACE_VM=1

# A container runtime changes the root of its processes, which the kernel refuses where the root is the
# initramfs' own mount: another mount of the same files will do.
if [ -z "$REMOUNTED" ]; then
    export REMOUNTED=1
    mount --bind / /root && cd /root && mount --move . / && exec chroot . /init
    echo "init: cannot mount the root again"
fi

echo "MEMTRACE-VM-STARTED"

finish() {
    # The kernel must not write into the middle of the marker.
    dmesg -n 1
    echo
    echo "MEMTRACE-VM-EXIT $1"
    # Lets the serial port drain.
    sleep 1
    poweroff -f
}

must() {
    "$@" && return
    echo "init: failed: $*"
    finish 125
    # Switching off takes a moment; nothing else may run in it.
    sleep 60
}

mount_v1() {
    must mount -t tmpfs tmpfs /sys/fs/cgroup
    # The last two are for container runtimes.
    for controller in memory cpu,cpuacct pids devices freezer; do
        mkdir -p "/sys/fs/cgroup/$controller"
        must mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
    # What systemd does; kernels since 5.11 are always hierarchical.
    echo 1 2>/dev/null >/sys/fs/cgroup/memory/memory.use_hierarchy
}

must mount -t proc proc /proc
must mount -t sysfs sysfs /sys
must mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
must mount -t devpts devpts /dev/pts
must mount -t tmpfs tmpfs /dev/shm
must mount -t tmpfs tmpfs /tmp
must mount -t tmpfs tmpfs /run
must mount -t tracefs tracefs /sys/kernel/tracing
must mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname memtrace-vm
# An empty disk, for tests that need swap.
[ -b /dev/nvme0n1 ] && export MEMTRACE_SWAP_DEVICE=/dev/nvme0n1
# Binary data may be sent through the second serial port; tests write there what they found out.
stty -F /dev/ttyS1 raw 2>/dev/null
export MEMTRACE_MATRIX=/dev/ttyS1

case "$(cat /proc/cmdline)" in
*memtrace.cgroup=v1*)
    mount_v1
    ;;
*memtrace.cgroup=hybrid*)
    mount_v1
    mkdir /sys/fs/cgroup/unified
    must mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
*)
    must mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for controller in memory cpu pids; do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
    ;;
esac

cd /root || finish 125
sh /command
status=$?
if [ "$status" -ne 0 ]; then
    echo "init: exit status $status; the last kernel messages:"
    dmesg | sed '1,/Run \/init as init/d' | tail -n 40
fi
finish "$status"
