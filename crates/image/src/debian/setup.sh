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
# the disk is all zeroes; where mke2fs cannot be told so it writes them, for a machine
# would do it later, each in its own copy
for zeroes in assume_storage_prezeroed=1 lazy_itable_init=0,lazy_journal_init=0; do
    /usr/sbin/chroot /tools /usr/sbin/mke2fs -q -F -t ext4 -L debian -m 1 -i 32768 \
        -E $zeroes,nodiscard /dev/vda && break
done
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

# A process costs here what a second of work does elsewhere. So programs that scripts
# start for each unit, certificate or module have a stand-in while they run, and what
# these leave out is done once, for all.
stood_in=
stand_in() { # for PROGRAM; the stand-in is standard input
    mv "/mnt$1" "/mnt$1.real"
    cat > "/mnt$1"
    chmod 755 "/mnt$1"
    stood_in="$stood_in $1"
}
stand_in /usr/bin/deb-systemd-helper <<'END'
#!/bin/sh
# of a first installation: what is asked about was enabled, and never masked
case " $* " in
    *" enable "* | *" update-state "*) echo "$@" >> /run/units ;;
    *" debian-installed "*) exit 1 ;;
esac
END
stand_in /var/lib/dpkg/info/ca-certificates.config <<'END'
#!/bin/sh
set -e
# all there are, and all are trusted
. /usr/share/debconf/confmodule
cd /usr/share/ca-certificates
all=$(find . -name '*.crt' | sed 's|^\./||' | sort | tr '\n' ',' | sed 's/,$//; s/,/, /g')
db_subst ca-certificates/enable_crts enable_crts "$all"
db_set ca-certificates/enable_crts "$all"
db_fset ca-certificates/new_crts seen true
END
stand_in /usr/sbin/update-ca-certificates <<'END'
#!/bin/sh
END
# python's modules: on the other processor; links to modules are some too
compile() { # VERSION
    inside "/usr/bin/$1" -E -S "/usr/lib/$1/py_compile.py.real" \
        $(inside /usr/bin/find "/usr/lib/$1" -xtype f -name '*.py' ! -name py_compile.py)
}
compilers=
for lib in /mnt/usr/lib/python3.*; do
    stand_in "${lib#/mnt}/py_compile.py" <<'END'
import sys
if __name__ == "__main__" and "-" not in sys.argv:
    sys.exit()
exec(open(__file__ + ".real").read())
END
    compile "${lib##*/}" &
    compilers="$compilers $!"
done

inside /usr/bin/dpkg --configure --pending

for compiler in $compilers; do wait "$compiler"; done
for program in $stood_in; do mv "/mnt$program.real" "/mnt$program"; done
# what is masked (settings) is not enabled
while read -r call; do
    [ "$(readlink "/mnt/etc/systemd/system/${call##* }")" = /dev/null ] ||
        inside DPKG_MAINTSCRIPT_PACKAGE=kluis /usr/bin/deb-systemd-helper $call || true
done < /mnt/run/units
# update-ca-certificates(8)
inside /usr/bin/python3 -c '
import os
os.chdir("/etc/ssl/certs")
with open("/etc/ca-certificates.conf") as names, open("ca-certificates.crt", "w") as bundle:
    for name in names.read().splitlines():
        if name and name[0] not in "#!":
            path = "/usr/share/ca-certificates/" + name
            link = os.path.basename(name).removesuffix(".crt").translate(str.maketrans(" (),", "_==_"))
            os.symlink(path, link + ".pem")
            bundle.write(open(path).read().rstrip("\n") + "\n")
'
inside /usr/bin/openssl rehash /etc/ssl/certs
inside /usr/bin/systemd-sysusers /etc/sysusers.d/kluis.conf
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
