/* The front end's half of vhost-user, and the driver's half of a split virtqueue.
 *
 * Plain C and Linux, nothing else. `load.c` drives it; `requests.c` lays out what a queue carries.
 * Sources: QEMU docs/interop/vhost-user.rst; VIRTIO 1.2, 2.7. Little-endian hosts only.
 */
#ifndef FRONT_END_H
#define FRONT_END_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define MAX_QUEUES 64
#define GUEST_BASE 0x100000ull /* guest physical address of the first byte of RAM */

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

struct desc { /* struct virtq_desc, 2.7.5 */
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct queue {
    uint16_t size;
    struct desc *desc;
    volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
    volatile uint16_t *used;  /* flags, idx, ring[size] of 4 words each, avail_event */
    uint16_t next_avail, published, last_used;
    int kick;
    uint64_t kicks;
};

struct front_end {
    int socket, ram_fd, call, queue_count;
    uint8_t *ram;
    size_t ram_size, ram_used;
    bool indirect;
    uint64_t capacity; /* bytes; 0 if the device does not say (scsi) */
    uint64_t interrupts;
    struct queue queues[MAX_QUEUES];
};

/* Say why and exit with status 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Make RAM, connect, negotiate, start `queues` request queues after `first` others that are only enabled. */
void front_end_start(struct front_end *front, const char *path, bool scsi, int queues, uint16_t size, size_t ram);
void *ram_take(struct front_end *front, size_t bytes, size_t align);
uint64_t gpa_of(const struct front_end *front, const volatile void *at);

void queue_offer(struct queue *queue, uint16_t head);
void queue_publish(struct queue *queue);                    /* one index store, a kick if asked for */
bool queue_take(struct queue *queue, uint16_t *head, uint32_t *written);
bool queue_arm(struct queue *queue);                        /* true if completions came meanwhile */
void front_end_wait(struct front_end *front, int seconds);  /* for the interrupt; fails after so long */

#endif
