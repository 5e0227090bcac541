# A boot sector that counts its boots in the sector behind it and says the count on the serial port: "LAB:boot N".
# N is a letter from A on. A BIOS loads it at 7c00h with the disk's number in dl.
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    mov $0x0201, %ax        # read one sector
    call disk
    incb 0x8000
    mov $0x0301, %ax        # write it back
    call disk
    mov $words, %si
next:
    lodsb
    test %al, %al
    jz count
    call say
    jmp next
count:
    mov 0x8000, %al
    add $0x40, %al
    call say
    mov $10, %al
    call say
stop:
    hlt
    jmp stop
disk:                       # dl is kept
    mov $0x0002, %cx        # cylinder 0, sector 2
    xor %dh, %dh
    mov $0x8000, %bx
    int $0x13
    ret
say:                        # %al to the serial port at 3f8h, when it takes it
    mov %al, %ah
    push %dx
    mov $0x3fd, %dx
wait:
    in %dx, %al
    test $0x20, %al
    jz wait
    mov $0x3f8, %dx
    mov %ah, %al
    out %al, %dx
    pop %dx
    ret
words:
    .asciz "LAB:boot "
    .org 510
    .word 0xaa55
