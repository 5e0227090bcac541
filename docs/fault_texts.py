"""What the pages of `docs/faults` say about each fault, beside what the table of actions knows.

Read by `generate_faults.py`. Facts about Windows are from its class driver's source and, where a row has sense data
or a status, from the model in `qemu_odx/windows`; facts about Linux name the file of the kernel that decides.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """One page.

    Attributes:
        wire: what can be seen on the ring.
        linux: what a Linux guest makes of it.
        windows: what a Windows guest makes of it.
        rules: example rules, each of which the server takes.
    """

    wire: str
    linux: str
    windows: str
    rules: tuple[str, ...]


VIRTIO_SCSI_WAITS = (
    "Linux waits for ever: `drivers/scsi/virtio_scsi.c` (`virtscsi_eh_timed_out`) restarts the timer "
    "of every command, since a host is trusted to answer. The program hangs in the kernel. virtio-blk "
    "(`drivers/block/virtio_blk.c`) waits in the same way."
)
STORPORT_WAITS = (
    "The disk's time-out ends the request (10 s in the class driver, the registry value "
    "`Disk\\TimeOutValue` if it is there): Windows gives `STATUS_IO_TIMEOUT` for it and tries again "
    "after a second, once for a POPULATE TOKEN, twice for a WRITE USING TOKEN. A copy engine starts "
    "no further WRITE USING TOKEN of a request that is older than 4 s."
)

TEXTS: dict[str, Text] = {
    "sense": Text(
        "CHECK CONDITION with 18 bytes of fixed-format sense data; INFORMATION and its VALID bit are set "
        "if `information=` is there. Without `when=after` nothing was executed. A POPULATE TOKEN or WRITE "
        "USING TOKEN that ends so leaves a failed result under its list identifier (status 02h, with the "
        "same sense data), as one that the target refuses.",
        "`drivers/scsi/scsi_error.c` (`scsi_check_sense`) decides. MEDIUM ERROR with 11h, 13h or 14h is "
        'not tried again ("critical medium error" in the log): ENODATA with direct I/O, EIO through the page '
        "cache. ABORTED COMMAND, NOT READY 04h/01h and most UNIT ATTENTIONs are tried again, "
        "five times for a disk, and the program sees nothing of it. ILLEGAL REQUEST with 20h, 21h, 24h or "
        "26h ends at once (EREMOTEIO). DATA PROTECT 27h/07h becomes ENOSPC. `sg` users get every sense "
        "code as it is. With INFORMATION inside the request, `drivers/scsi/sd.c` (`sd_completed_bytes`) "
        "takes the blocks before it as done.",
        "See the table below. A 23h of any cause marks the token as dead for the caller; the first such "
        "error of a file copy ends token copies between the two volumes. DATA PROTECT 27h/07h may take "
        "the disk offline.",
        (
            "op=WRITE USING TOKEN,nth=2,sense=token-expired",
            "op=read,lba=1000-1007,sense=unrecovered-read-error,information=1000",
            "op=token,sense=insufficient-resources,count=1",
            "op=WRITE USING TOKEN,sense=unreachable-copy-target,key=illegal-request",
            "cdb=8310,sense=5/26/08",
        ),
    ),
    "status": Text(
        "The SCSI status alone, no sense data. `good` lies: the command was not executed.",
        "`drivers/scsi/scsi_error.c` (`scsi_decide_disposition`): BUSY and TASK SET FULL are queued again "
        "until they succeed or the command's retries and time are used up; TASK SET FULL also makes the "
        "queue shorter. TASK ABORTED is tried again a few times. RESERVATION CONFLICT ends the request "
        "with EBADE, without another try. CONDITION MET counts as success, whatever came of the data; ACA "
        "ACTIVE ends the request at once with an error.",
        "BUSY: tried again at once, but the disk driver resets the bus each time "
        "(`STATUS_DEVICE_NOT_READY` in the end). TASK SET FULL: tried again at once, no reset. "
        "RESERVATION CONFLICT: `STATUS_DEVICE_BUSY`, not tried again. Never use BUSY to slow a copy down: "
        "see [delay](delay.md).",
        (
            "op=write,action=status,status=busy,every=10",
            "op=token,action=status,status=task-set-full,count=3",
            "op=write,action=status,status=reservation-conflict,disk=d0",
        ),
    ),
    "blk-status": Text(
        "The status byte of the virtio-blk request; used length 1, or what a request that was executed "
        "has (`when=after`).",
        "`drivers/block/virtio_blk.c` (`virtblk_result`): IOERR is EIO at once, UNSUPP is EOPNOTSUPP. "
        "Nothing is tried again. A file system meets it as a bad disk: ext4 and XFS stop or turn "
        "read-only if it hits their journal.",
        "viostor ends the request with an error; what the class driver makes of that was not run here.",
        (
            "op=OUT,nth=100,action=blk-status,status=ioerr",
            "op=FLUSH,action=blk-status,status=ioerr,when=after",
            "op=DISCARD,action=blk-status,status=unsupp",
        ),
    ),
    "partial": Text(
        "READ and WRITE: the first blocks move, then CHECK CONDITION with 11h/00h or 0Ch/00h (or "
        "`sense=`), whose INFORMATION is the first block that was not done; a residual says the same. "
        "virtio-blk: the first sectors move, then IOERR. WRITE USING TOKEN: the blocks that are written "
        "are the first in the order of the descriptors; the command ends with 0Dh/04h, key COPY ABORTED, "
        "or ILLEGAL REQUEST if nothing was written; INFORMATION and TRANSFER COUNT of RECEIVE ROD TOKEN "
        "INFORMATION are the number of blocks, its status is 03h. POPULATE TOKEN: the same, and the token "
        "stands for those blocks alone; without any there is no token.",
        "`drivers/scsi/sd.c` (`sd_completed_bytes`, bounded by the residual): what INFORMATION says to be "
        "done is done, the rest fails or is asked for again by itself. virtio-blk knows no partial "
        "success: EIO for all of it.",
        "0Dh/04h with COPY ABORTED is success that was cut short: the next WRITE USING TOKEN goes on "
        "behind INFORMATION, and the caller sees `STORAGE_OFFLOAD_WRITE_RANGE_TRUNCATED` at most. It is "
        "never checked that INFORMATION is not more than was asked for. For plain reads and writes the "
        "whole request fails with `STATUS_DEVICE_DATA_ERROR`.",
        (
            "op=WRITE USING TOKEN,action=partial,blocks=2048,nth=3",
            "op=POPULATE TOKEN,action=partial,blocks=100",
            "op=read,action=partial,blocks=1,sense=unrecovered-read-error",
        ),
    ),
    "short-read": Text(
        "GOOD and a residual; OK and a short used length. The rest of the buffer is as the guest left it.",
        "virtio-scsi hands the residual on, and `drivers/scsi/sd.c` asks again for the rest of a request. "
        "virtio-blk does not look at the used length: the program reads what was in that memory before. "
        "That is silent corruption.",
        "A residual on a plain read ends as a short transfer. On POPULATE TOKEN any residual is a "
        "failure; it never has one here, since this fault is for reads.",
        ("op=read,action=short-read,blocks=1,probability=0.01,seed=7",),
    ),
    "bit-flip": Text(
        "The answer is the ordinary one. `way=in`: one bit of the data-in is turned after it was read; "
        "the disk is right. `way=out`: one bit of a write is turned before it reaches the disk; a token "
        "made later stands for the wrong byte. `byte=` counts from the start of the data; without it, and "
        "without `bit=`, the seed chooses.",
        "Nothing notices but checksums above the disk: btrfs, ZFS, the metadata checksums of ext4 and "
        "XFS, dm-integrity.",
        "Nothing notices but ReFS integrity streams and applications. A bit of RECEIVE ROD TOKEN "
        "INFORMATION makes the token unknown or corrupt: 23h/04h or 23h/05h at the next WRITE USING "
        "TOKEN, and never other data.",
        (
            "op=read,action=bit-flip,probability=0.001,seed=3",
            "op=RECEIVE ROD TOKEN INFORMATION,action=bit-flip,byte=300,bit=0",
            "disk=d0,action=bit-flip,way=out,lba=0-7,count=1",
        ),
    ),
    "delay": Text(
        "The request is taken and held, then executed and answered; with `when=after` executed, held and "
        "answered. Time is the server's clock: with `--clock virtual` it passes by `odx-clock-advance` "
        "alone. Others are not held up. An abort or a reset ends what waits at once, and what was not "
        "executed yet never is.",
        "A slow disk; see [stall](stall.md) for how long Linux waits: for ever.",
        "A WRITE USING TOKEN that takes 4 s or more ends the offload write after it: the caller is told "
        "how far it came. Beyond the disk's time-out, see [stall](stall.md).",
        (
            "op=token,action=delay,seconds=3.5",
            "op=FLUSH+SYNCHRONIZE CACHE(10),action=delay,seconds=0.2,when=after",
            "op=LOGICAL UNIT RESET,action=delay,seconds=2",
        ),
    ),
    "stall": Text(
        "The request is held until the rule is released, removed, or ended by an abort, a reset or the "
        "end of the queue. `query-odx-faults` tells how many wait. What is released goes on in the order "
        "in which it came.",
        VIRTIO_SCSI_WAITS,
        STORPORT_WAITS,
        (
            "name=gate,op=WRITE USING TOKEN,action=stall,armed=off",
            "op=write,lba=0,action=stall,when=after",
        ),
    ),
    "never-answer": Text(
        "No answer, and none for ABORT TASK, ABORT TASK SET, LOGICAL UNIT RESET or I_T NEXUS RESET that "
        "would end it. When the driver resets the device, or QEMU leaves, the request is given up: "
        "aborted, IOERR in virtio-blk. Releasing the rule lets all go on.",
        VIRTIO_SCSI_WAITS + (" An abort that somebody asks for (`sg_reset`) waits too, in `virtscsi_tmf`."),
        STORPORT_WAITS
        + (
            " The abort, and the resets that follow, get no answer either, and Storport goes on to larger "
            "resets."
        ),
        (
            "op=WRITE USING TOKEN,nth=1,action=never-answer",
            "op=SYNCHRONIZE CACHE(10),action=never-answer,when=after",
        ),
    ),
    "answer-after-reset": Text(
        "No answer, and none for an abort, until LOGICAL UNIT RESET or I_T NEXUS RESET: that is answered, "
        "the command ends with virtio-scsi response RESET, and the aborts that waited are answered too.",
        VIRTIO_SCSI_WAITS + (" `sg_reset -d` on the disk ends it; Linux sends the command again."),
        STORPORT_WAITS
        + (
            " The reset of the logical unit ends the request as `SRB_STATUS_BUS_RESET`, which is tried again."
        ),
        (
            "op=POPULATE TOKEN,count=1,action=answer-after-reset",
            "op=write,action=answer-after-reset,when=after",
        ),
    ),
    "drop-connection": Text(
        "The vhost-user socket is closed. The request at hand, and all that were taken before, are "
        "executed and completed in the ring, as with every connection that ends; QEMU finds them there "
        "when it is back.",
        "With `reconnect=` on the chardev QEMU comes back by itself for virtio-blk and the guest sees a "
        "pause. QEMU 7.2 does not reconnect vhost-user-scsi: the disks hang until QEMU is started again.",
        "The same pause; beyond the disk's time-out requests are aborted and tried again.",
        ("export=b.sock,op=OUT,nth=50,action=drop-connection",),
    ),
    "kill-backend": Text(
        "SIGKILL to the server itself, before the request is executed or (`when=after`) after that and "
        "before its answer. What is in flight stays marked in the in-flight area; the server that is "
        "started next runs it again. Tokens: see `--state`; without it they are unknown (23h/04h) "
        "afterwards, never wrong.",
        "A pause with virtio-blk and `reconnect=` (QEMU 10: virtio-scsi too). A write that was executed before the "
        "kill is executed a second time, with the same data.",
        "As Linux. With `--state` a token copy in progress goes on, and its old list identifier tells how it ended; "
        "without it the answer is 24h/00h, and Windows falls back to an ordinary copy.",
        (
            "op=WRITE USING TOKEN,nth=1,action=kill-backend,when=after",
            "op=OUT,after=1000,count=1,action=kill-backend",
        ),
    ),
    "disk-error": Text(
        "The disk below both doors fails, whoever asks: READ ends with 11h/00h, WRITE and SYNCHRONIZE "
        "CACHE with 0Ch/00h, virtio-blk with IOERR. A token write that meets it ends as "
        "[partial](partial.md) at the last whole step of 1 MiB, a POPULATE TOKEN (`op=disk-snapshot`) "
        "with 11h/00h, a compare-and-write with nothing written. `op=snapshot-keep`: see "
        "[out-of-space](out-of-space.md). The disk needs `layers=faults`, which `serve --fault` adds by "
        "itself.",
        "As [sense](sense.md) with MEDIUM ERROR, and as [blk-status](blk-status.md): no further try.",
        "`STATUS_DEVICE_DATA_ERROR`, no further try.",
        (
            "disk=d0,action=disk-error,op=disk-read,lba=4096",
            "disk=d0,action=disk-error,op=disk-flush,errno=EIO,count=1",
            "disk=d1,action=disk-error,op=disk-write,probability=0.01,seed=9",
        ),
    ),
    "out-of-space": Text(
        "Writes end with DATA PROTECT 27h/07h, or IOERR; a token write with ABORTED COMMAND 55h/03h "
        "(nothing written) or 0Dh/04h (some); POPULATE TOKEN with 55h/03h. `op=snapshot-keep`: the old "
        "data that a token protects cannot be put aside. The guest's write goes through, and the token is "
        "cancelled: 23h/08h. Where the image's file system has reflinks the blocks are shared when the "
        "token is made, and it is POPULATE TOKEN that fails.",
        "27h/07h becomes ENOSPC (`drivers/scsi/scsi_error.c`), as with a thin pool that is full; IOERR is "
        "EIO.",
        "27h/07h is `STATUS_DISK_RESOURCES_EXHAUSTED`, and Windows may take the disk offline. 55h/03h is "
        "`STATUS_INSUFFICIENT_RESOURCES`: the copy goes on in the ordinary way. 23h/08h is "
        "`STATUS_INVALID_TOKEN`.",
        (
            "disk=d0,action=out-of-space",
            "disk=d0,action=out-of-space,op=snapshot-keep,count=1",
            "disk=d0,action=out-of-space,op=disk-snapshot",
        ),
    ),
    "torn-write": Text(
        "The first bytes of the write are on the disk, wherever in a block that ends; then 0Ch/00h, or "
        "IOERR. With `report=ok` the guest is told that all is well; `bytes=0,report=ok` is a write that "
        "is lost. What tokens protect is kept first, as before every write.",
        "As [disk-error](disk-error.md); with `report=ok` nothing notices until the data are read.",
        "The same.",
        (
            "disk=d0,action=torn-write,bytes=4096,lba=0-127",
            "disk=d0,action=torn-write,bytes=0,report=ok,probability=0.001,seed=1",
        ),
    ),
}
"""By action."""
