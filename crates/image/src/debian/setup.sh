# Runs in a Kluis machine with the small image. Disks: the image to be made, the
# tools to make a file system (tar), the packages' files (tar). Standard input ends
# when the host's side does.
set -eu
# a background job would have /dev/null as its standard input
exec 3<&0
( cat <&3 >/dev/null; echo "the host is gone" >&2; kill -9 $$ ) &
exec 3<&- </dev/null

step() { echo "step: $*"; }
inside() { /usr/sbin/chroot /mnt /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true "$@" </dev/null; }

step "Making the file system"
mkdir /tools
tar x -f /dev/vdb -C /tools
mkdir -p /tools/dev /tools/proc
mount --bind /dev /tools/dev
mount -t proc proc /tools/proc
# all is written now: a machine would do it later, each in its own copy
/usr/sbin/chroot /tools /usr/sbin/mke2fs -q -F -t ext4 -L debian -m 1 -i 32768 \
    -E lazy_itable_init=0,lazy_journal_init=0,nodiscard /dev/vda
umount /tools/proc /tools/dev
rm -r /tools
mount -t ext4 -o noatime,nobarrier /dev/vda /mnt

step "Unpacking packages"
tar x -f /dev/vdc -C /mnt
mount --bind /dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount -t tmpfs tmpfs /mnt/run

step "Configuring packages"
# what base-passwd does before it is unpacked; what mawk's alternative will be
for file in passwd group; do cp /mnt/usr/share/base-passwd/$file.master /mnt/etc/$file; done
[ -e /mnt/usr/bin/awk ] || ln -s mawk /mnt/usr/bin/awk
# nothing is started here
printf '#!/bin/sh\nexit 101\n' > /mnt/usr/sbin/policy-rc.d
chmod 755 /mnt/usr/sbin/policy-rc.d
# keys are each machine's own: these keep openssh-server from making some
for kind in rsa ecdsa ed25519; do echo none > /mnt/etc/ssh/ssh_host_${kind}_key; done
inside /usr/bin/dpkg --configure --pending
left=$(inside /usr/bin/dpkg --audit)
[ -z "$left" ] || { echo "$left" >&2; exit 1; }
inside /usr/sbin/depmod "$(uname -r)"

step "Finishing"
rm -f /mnt/etc/ssh/ssh_host_* /mnt/usr/sbin/policy-rc.d /mnt/var/lib/dpkg/*-old /mnt/etc/*-
rm -rf /mnt/var/cache/debconf/*-old /mnt/var/cache/ldconfig/* /mnt/tmp/* /mnt/var/tmp/*
# each machine gets its own (machine-id(5))
: > /mnt/etc/machine-id
umount /mnt/run /mnt/sys /mnt/proc /mnt/dev /mnt
step "Done"
