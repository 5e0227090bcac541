/*
 * The core of the filter, of no operating system: from an IOCTL buffer to SCSI packets and back.
 *
 * It does what Windows' own class driver (classpnp) does for the offload actions of
 * IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES: the same checks in the same order, the same CDBs and parameter lists, the
 * same status values and output. It touches no memory but the buffers it is given, whatever their content says.
 * odxflt_*.c joins it to Windows; the tests compile it natively.
 */
#ifndef ODX_CORE_H
#define ODX_CORE_H

#include <stdbool.h>
#include <stddef.h>

#include "odx_wire.h"

/* One SCSI command: what goes out, room for what comes in, and how it ended. */
typedef struct odx_packet {
    uint8_t cdb[CDB_BYTES];
    const uint8_t *data_out;
    uint32_t data_out_length;
    uint8_t *data_in;
    uint32_t data_in_room;
    uint32_t data_in_length; /* bytes that came, at most data_in_room */
    uint8_t scsi_status;
    uint8_t sense[SENSE_ROOM]; /* fixed format */
    uint32_t sense_length;     /* at most SENSE_ROOM */
} odx_packet;

/* What the core needs from its surroundings. */
typedef struct odx_port {
    void *context;
    odx_status (*execute)(void *context, odx_packet *packet); /* an error: the packet did not reach the disk */
    uint64_t (*milliseconds)(void *context);                  /* of a clock that only goes forward */
    void (*pause)(void *context, uint32_t milliseconds);
    uint32_t (*list_identifier)(void *context); /* the next one of the whole machine */
    uint32_t max_transfer;                      /* bytes of one packet's data */
} odx_port;

/* A disk and what it says of itself (VPD pages 8Fh and B0h, READ CAPACITY); sizes in blocks if not said otherwise. */
typedef struct odx_disk {
    odx_port port;
    bool supported;      /* page 8Fh is there and as Windows wants it */
    uint32_t block_size; /* bytes; 0 while unknown */
    uint64_t bytes;
    bool stale; /* the disk said that its capacity has changed */
    uint16_t max_ranges;
    uint32_t max_lifetime, default_lifetime; /* seconds */
    uint64_t max_blocks, optimal_blocks;
    uint32_t max_descriptor, optimal_descriptor;
    uint16_t granularity;
} odx_disk;

/* One IOCTL: `buffer` holds the input and takes the output, and is as long as the longer of the two. */
typedef struct odx_dsm {
    uint8_t *buffer;
    uint32_t in_length;
    uint32_t out_length;
    bool caller_allowed; /* kernel mode, or user mode and the policy lets it */
    bool level_allowed;  /* IRQL below DISPATCH_LEVEL */
    uint8_t *scratch;    /* for odx_dsm_run, of at least ODX_SCRATCH_LEAST bytes */
    uint32_t scratch_length;
    uint32_t information; /* bytes of output; set by odx_dsm_run */
} odx_dsm;

#define ODX_MOST_RANGES 64u /* in one command, whatever the disk allows (classpnp's own limit) */
#define ODX_LIST_ROOM (536u + 16u * ODX_MOST_RANGES)
#define ODX_POPULATE_ANSWER 805u /* 32 + 255 + 4 + 514 */
#define ODX_SCRATCH_LEAST (ODX_LIST_ROOM + ODX_POPULATE_ANSWER)

/* odx_check.c: every check classpnp makes before the first SCSI command. */
bool odx_is_offload(const uint8_t *buffer, uint32_t in_length);
odx_status odx_dsm_check(odx_disk *disk, const odx_dsm *dsm);

/* odx_copy.c: the copy itself, and the property. Call odx_dsm_check first and run only if it says ODX_SUCCESS. */
odx_status odx_dsm_run(odx_disk *disk, odx_dsm *dsm);
odx_status odx_property(const odx_disk *disk, uint8_t *buffer, uint32_t in_length, uint32_t out_length,
                        uint32_t *information);

/* odx_discover.c: fills in the disk; needs disk->port and ODX_VPD_ROOM bytes of scratch. */
#define ODX_VPD_ROOM 255u /* what Windows asks for of a VPD page */
void odx_discover(odx_disk *disk, uint8_t *scratch);
odx_status odx_read_capacity(odx_disk *disk);

/* odx_packets.c: CDBs, parameter lists, answers. */
typedef struct odx_cursor { /* a place in the ranges of an IOCTL */
    const uint8_t *ranges;
    uint32_t count;
    uint32_t block_size;
    uint32_t index; /* range */
    uint64_t used;  /* blocks of it already done */
} odx_cursor;

typedef struct odx_answer { /* of RECEIVE ROD TOKEN INFORMATION */
    bool complete;          /* the operation has ended */
    uint64_t count;         /* blocks */
    const uint8_t *token;   /* TOKEN_SIZE bytes of the answer, NULL if there is none */
    odx_packet outcome;     /* status and sense data of the copy itself */
} odx_answer;

uint64_t odx_cursor_blocks(const odx_cursor *cursor);
void odx_cursor_advance(odx_cursor *cursor, uint64_t blocks);
uint32_t odx_describe(odx_cursor cursor, uint8_t *at, uint32_t most_ranges, uint64_t most_blocks, uint64_t *blocks);
uint32_t odx_populate_list(uint8_t *list, uint32_t lifetime, uint32_t ranges);
uint32_t odx_write_list(uint8_t *list, uint64_t offset, const uint8_t *token, uint32_t ranges);
void odx_copy_out_cdb(uint8_t *cdb, uint8_t action, uint32_t identifier, uint32_t length);
void odx_receive_cdb(uint8_t *cdb, uint32_t identifier, uint32_t length);
odx_answer odx_parse_answer(const uint8_t *data, uint32_t length, uint64_t requested);

/* odx_sense.c: what a command's end means. */
typedef struct odx_verdict {
    odx_status status;
    bool retry;
    uint32_t wait;        /* milliseconds before the retry */
    uint32_t information; /* blocks done by a truncated copy, 0 if not told */
    bool news;            /* the disk's capacity may have changed */
} odx_verdict;

odx_verdict odx_judge(const odx_packet *packet);
odx_verdict odx_execute(odx_disk *disk, odx_packet *packet, uint32_t retries);

/* odx_mailbox.c: pages of the mailbox protocol, version 1 (docs/mailbox.md). */
#define MAILBOX_PLACE 524288u  /* byte of the disk where a window is looked for */
#define MAILBOX_HEAD_READ 4096u
#define MAILBOX_PAGE 8192u     /* most of a request, and of a response */
#define MAILBOX_HEADER 96u
#define MAILBOX_MOST_SLOTS 64u
#define MAILBOX_SLOT_TAKEN 6u

typedef struct odx_mailbox {
    uint64_t place; /* byte of the disk where slot 0 is */
    uint32_t slots, slot_size, response_offset;
    uint32_t most_out, most_in;
    uint32_t block_size;
} odx_mailbox;

typedef struct odx_letter { /* what ties a response to its request */
    uint64_t sequence;
    uint64_t user;
} odx_letter;

uint32_t odx_crc32(const uint8_t *data, size_t length, uint32_t crc);
bool odx_mailbox_head(const uint8_t *head, size_t length, odx_mailbox *mailbox);
uint32_t odx_mailbox_request(const odx_mailbox *mailbox, uint8_t *page, odx_letter letter, const odx_packet *packet);
uint32_t odx_mailbox_response_room(const odx_mailbox *mailbox, const odx_packet *packet);
odx_status odx_mailbox_response(const uint8_t *page, size_t length, odx_letter letter, odx_packet *packet,
                                uint32_t *result);

#endif
