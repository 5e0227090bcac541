/* What a queue carries: requests of virtio-blk (VIRTIO 1.2, 5.2.6) or of virtio-scsi (5.6.6.1), and their data. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "front_end.h"

struct slot { /* a request, in flight or free; it keeps its buffers */
    uint8_t *out, *in, *data;
    struct desc *table;
    uint16_t head;
    bool write;
    uint64_t block, started;
};

struct work { /* the same for all requests */
    bool scsi;
    uint32_t block_size, segment;
    uint64_t blocks; /* the disk's first ones are used */
};

void slot_make(struct front_end *front, struct queue *queue, const struct work *work, struct slot *slot, int number);
void slot_prepare(struct slot *slot, const struct work *work, uint64_t block, bool write);
void slot_lay_out(struct slot *slot, struct front_end *front, struct queue *queue, const struct work *work);
int descriptors_of(const struct work *work);                     /* in one request */
/* NULL, or what is wrong with the completion; `again` if a unit attention wants the request repeated. */
const char *slot_result(const struct slot *slot, const struct work *work, uint32_t written, bool *again);

void pattern_fill(uint8_t *data, uint32_t length, uint64_t block, uint32_t generation);
bool pattern_holds(const uint8_t *data, uint32_t length, uint64_t block, uint32_t generation);

#endif
