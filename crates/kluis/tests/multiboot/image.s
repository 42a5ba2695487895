# A multiboot image that looks at everything an image made for QEMU looks for, says
# on the first serial port what it found, and ends as its command line asks:
#
#   end=xN  status N (decimal) to the debug-exit port
#   end=s   power-off at port 604h      end=p  at port B004h, as on old boards
#   end=r   reset at port CF9h          end=k  at the keyboard controller
#   end=f   reset at port 92h           end=t  triple fault
#
# Without `end` the status is the number of checks that failed. It runs here and in QEMU.

.set LOAD,      0x100000        # where the image lies
.set STACK,     0x120000        # from here on: .bss
.set PML4,      0x121000
.set PDPT,      0x122000
.set PD,        0x123000        # four of them
.set IDT,       0x127000
.set SAVED,     0x128000        # EAX, EBX, EFLAGS and CR0 at the entry
.set AP_STACKS, 0x129000
.set AP_NEXT,   0x139000        # offset of the next processor's stack
.set AP_COUNT,  0x139008
.set INTERRUPTS,0x139010
.set BSS_END,   0x13a000
.set TRAMPOLINE,0x8000          # of the other processors, in real mode
.set VECTOR,    0x40
.set GSI,       14
.set APIC,      0xfee00000
.set IOAPIC,    0xfec00000

.section .rodata.multiboot_image, "a", @progbits
.balign 16
.globl multiboot_image_start
multiboot_image_start:
.set FLAGS, 0x10003
.Lheader:
    .long 0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
    .long .Lheader - multiboot_image_start + LOAD                     # header_addr
    .long LOAD                                                      # load_addr
    .long multiboot_image_end - multiboot_image_start + LOAD        # load_end_addr
    .long BSS_END                                                   # bss_end_addr
    .long .Lstart - multiboot_image_start + LOAD                      # entry_addr

# ------------------------------------------------------------------ 32 bits
.code32
.Lstart:
    movl %eax, SAVED
    movl %ebx, SAVED + 4
    pushfl                      # there is a stack, though none is promised
    popl SAVED + 8
    movl %cr0, %eax
    movl %eax, SAVED + 12
    cld
    movl $STACK, %esp

    movl $(PDPT + 3), PML4
    movl $(PD + 3), %eax
    movl $PDPT, %edi
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    cmpl $(PDPT + 32), %edi
    jne 1b
    movl $0x83, %eax            # present, writable, 2 MiB
    movl $PD, %edi
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b

    movl $(.Lmain - multiboot_image_start + LOAD), %ebx
.Llong_mode:                      # to EBX in 64-bit mode
    movl %cr4, %eax
    orl $0x20, %eax             # PAE
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER.LME
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    lgdtl .Lgdtr - multiboot_image_start + LOAD
    ljmpl $0x08, $(.Lin_long_mode - multiboot_image_start + LOAD)

.Lap32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %ss
    movl $(.Lap64 - multiboot_image_start + LOAD), %ebx
    jmp .Llong_mode

# ------------------------------------------------------------------ 16 bits
.code16
.Lap16:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl .Lgdtr16 - .Lap16 + TRAMPOLINE
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(.Lap32 - multiboot_image_start + LOAD)
.balign 4
.Lgdtr16:
    .word .Lgdt_end - .Lgdt - 1
    .long .Lgdt - multiboot_image_start + LOAD
.Lap16_end:

# ------------------------------------------------------------------ 64 bits
.code64
.Lin_long_mode:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %ebx, %ebx
    jmp *%rbx

.Lap64:
    movl $0x1000, %eax
    lock xaddl %eax, AP_NEXT
    leaq AP_STACKS + 0x1000(%rax), %rsp
    pushq %rax                  # each has its own
    popq %rcx
    lock incl AP_COUNT
1:  hlt
    jmp 1b

.macro say text
    leaq 771f(%rip), %rsi
    call .Lputs
    jmp 772f
771: .asciz "\text"
772:
.endm

# Reports a check by its condition.
.macro check condition, name
    set\condition %al
    leaq 771f(%rip), %rsi
    call .Lreport
    jmp 772f
771: .asciz "\name"
772:
.endm

.Lmain:
    movl SAVED + 4, %r12d       # multiboot information
    xorl %r15d, %r15d           # checks that failed

    cmpl $0x2badb002, SAVED
    check e, "magic"
    testl $0x200, SAVED + 8
    check z, "interrupts off"
    movl SAVED + 12, %eax
    andl $0x80000001, %eax
    cmpl $1, %eax
    check e, "protected mode without paging"
    movl (%r12), %eax
    andl $0x24d, %eax
    cmpl $0x24d, %eax
    check e, "information"
    movl $0x12345678, 0x500000
    movl $0x9abcdef0, 0x400000
    cmpl $0x12345678, 0x500000
    check e, "A20"

    say "cmdline: "
    movl 16(%r12), %esi
    call .Lline
    movl 20(%r12), %ebx         # modules
    movl 24(%r12), %ebp
1:  decl %ebx
    js 2f
    say "module: "
    movl 8(%rbp), %esi
    call .Lputs
    say " = "
    movl (%rbp), %esi
    movl 4(%rbp), %edi
3:  cmpl %edi, %esi
    je 4f
    lodsb
    call .Lputc
    jmp 3b
4:  call .Lnewline
    testl $0xfff, (%rbp)
    check z, "module in whole pages"
    addl $16, %ebp
    jmp 1b
2:
    cmpl $600, 4(%r12)
    check ae, "lower memory"
    # the memory map: bytes of RAM from 1 MiB on
    movl 44(%r12), %ecx
    movl 48(%r12), %esi
    addl %esi, %ecx
    xorl %ebx, %ebx
1:  cmpl $1, 20(%rsi)
    jne 2f
    cmpq $0x100000, 4(%rsi)
    jb 2f
    addq 12(%rsi), %rbx
2:  movl (%rsi), %eax
    leal 4(%rsi, %rax), %esi
    cmpl %ecx, %esi
    jb 1b
    say "upper memory: "
    movq %rbx, %rax
    shrq $10, %rax
    call .Ldecimal
    call .Lnewline

    # fw_cfg
    xorl %eax, %eax
    movl $4, %ecx
    call .Lfw_cfg
    cmpl $0x554d4551, %ebx      # QEMU
    check e, "fw_cfg"
    movl $5, %eax
    movl $2, %ecx
    call .Lfw_cfg
    movl %ebx, %r13d            # processors
    say "processors: "
    movq %r13, %rax
    call .Ldecimal
    call .Lnewline
    movl $3, %eax
    movl $8, %ecx
    call .Lfw_cfg
    say "memory: "
    movq %rbx, %rax
    shrq $10, %rax
    call .Ldecimal
    call .Lnewline

    # ACPI: RSDP, RSDT; in there FADT and MADT
    movl $0xe0000, %r8d
    movabsq $0x2052545020445352, %rax
1:  cmpq %rax, (%r8)
    je 2f
    addl $16, %r8d
    cmpl $0x100000, %r8d
    jne 1b
2:  cmpl $0x100000, %r8d
    check ne, "RSDP"
    movl 16(%r8), %r8d
    movl $0x50434146, %eax      # FACP
    call .Ltable
    testl %ebx, %ebx
    check nz, "FADT"
    movl 76(%rbx), %r14d        # PM timer
    movl $0x43495041, %eax      # APIC
    call .Ltable
    movl 4(%rbx), %ecx
    addl %ebx, %ecx
    addl $44, %ebx
    xorl %eax, %eax
1:  cmpb $0, (%rbx)
    jne 2f
    incl %eax
2:  movzbl 1(%rbx), %edx
    addl %edx, %ebx
    cmpl %ecx, %ebx
    jb 1b
    cmpl %r13d, %eax
    check e, "processors in the MADT"

    # PM timer: it goes
    movl %r14d, %edx
    inl %dx, %eax
    movl %eax, %ebx
    movl $10000000, %ecx
1:  inl %dx, %eax
    cmpl %eax, %ebx
    jne 2f
    loop 1b
2:  cmpl %eax, %ebx
    check ne, "PM timer"

    # the other processors
    leaq .Lap16(%rip), %rsi
    movl $TRAMPOLINE, %edi
    movl $(.Lap16_end - .Lap16), %ecx
    rep movsb
    movl $APIC, %ebx
    orl $0x1ff, 0xf0(%rbx)      # enabled
    movl $0xc4500, 0x300(%rbx)  # INIT to all but this one
    movl $36000, %edi           # 10 ms
    call .Lwait
    movl $(0xc4600 + (TRAMPOLINE >> 12)), 0x300(%rbx)
    movl $720, %edi             # 200 us
    call .Lwait
    movl $(0xc4600 + (TRAMPOLINE >> 12)), 0x300(%rbx)
    movl $100, %ebp             # 10 s
1:  movl AP_COUNT, %eax
    incl %eax
    cmpl %r13d, %eax
    je 2f
    movl $360000, %edi
    call .Lwait
    decl %ebp
    jnz 1b
2:  cmpl %r13d, %eax
    check e, "other processors"

    # the test device, if there is one
    movl $0xe0, %edx
    movl $0x1badcafe, %eax
    outl %eax, %dx
    movl $0xe8, %edx
    inl %dx, %eax
    cmpl $0x1badcafe, %eax
    je 1f
    say "no test device\n"
    jmp .Lend
1:  movl $0xff000000, %ebx
    movl $0x600df00d, 0x1234(%rbx)
    movzwl 0x1236(%rbx), %eax
    cmpl $0x600d, %eax
    check e, "test memory"

    # an interrupt from a wire, through the I/O APIC
    movb $0xff, %al             # and not from the 8259
    outb %al, $0x21
    outb %al, $0xa1
    leaq .Linterrupt(%rip), %rax
    movl $(IDT + 16 * VECTOR), %edi
    movw %ax, (%rdi)
    movw $0x08, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shrq $16, %rax
    movw %ax, 6(%rdi)
    lidt .Lidtr(%rip)
    movl $IOAPIC, %ebx
    movl $(0x11 + 2 * GSI), (%rbx)
    movl $APIC, %eax
    movl 0x20(%rax), %eax       # to this processor
    andl $0xff000000, %eax
    movl %eax, 0x10(%rbx)
    movl $(0x10 + 2 * GSI), (%rbx)
    movl $(0x8000 + VECTOR), 0x10(%rbx)     # level-triggered
    sti
    movl $(0x2000 + GSI), %edx
    movb $1, %al
    outb %al, %dx
    movl $36000, %edi
    call .Lwait
    cli
    cmpl $1, INTERRUPTS
    check e, "interrupt of a level"
    movl $VECTOR, 0x10(%rbx)                # edge-triggered
    sti
    movl $3, %ebp
1:  movl $(0x2000 + GSI), %edx
    movb $1, %al
    outb %al, %dx
    movl $3600, %edi
    call .Lwait
    decl %ebp
    jnz 1b
    cli
    cmpl $4, INTERRUPTS
    check e, "interrupts of edges"

.Lend:
    # end=…
    movl 16(%r12), %esi
1:  movl (%rsi), %eax
    testb %al, %al
    jz .Lnone
    cmpl $0x3d646e65, %eax      # end=
    je 2f
    incl %esi
    jmp 1b
.Lnone:
    movl %r15d, %eax
    jmp .Lexit
2:  movb 4(%rsi), %al
    addl $5, %esi
    cmpb $'x', %al
    je .Lstatus
    cmpb $'s', %al
    je .Loff
    cmpb $'p', %al
    je .Lold_off
    cmpb $'r', %al
    je .Lreset
    cmpb $'k', %al
    je .Lkeyboard
    cmpb $'f', %al
    je .Lfast
    lidt .Lno_idt(%rip)
    ud2
.Lstatus:
    xorl %ebx, %ebx
1:  xorl %eax, %eax
    lodsb
    subl $'0', %eax
    cmpl $9, %eax
    ja 2f
    imull $10, %ebx
    addl %eax, %ebx
    jmp 1b
2:  movl %ebx, %eax
.Lexit:
    movl $0xf4, %edx
    outl %eax, %dx
    say "no debug exit\n"        # so off it goes
.Loff:
    movl $0x604, %edx
    movw $0x2000, %ax
    outw %ax, %dx
    jmp .Lstop
.Lold_off:
    movl $0xb004, %edx
    movw $0x2000, %ax
    outw %ax, %dx
    jmp .Lstop
.Lreset:
    movl $0xcf9, %edx
    movb $2, %al
    outb %al, %dx
    movb $6, %al
    outb %al, %dx
    jmp .Lstop
.Lkeyboard:
    movb $0xfe, %al
    outb %al, $0x64
    jmp .Lstop
.Lfast:
    inb $0x92, %al
    orb $1, %al
    outb %al, $0x92
.Lstop:
    cli
    hlt
    jmp .Lstop

.Linterrupt:
    pushq %rax
    pushq %rdx
    incl INTERRUPTS
    movl $(0x2000 + GSI), %edx
    xorl %eax, %eax
    outb %al, %dx
    movl $APIC, %edx
    movl $0, 0xb0(%rdx)         # EOI
    popq %rdx
    popq %rax
    iretq

# Waits for EDI ticks of the PM timer, of which 24 bits count.
.Lwait:
    movl %r14d, %edx
    inl %dx, %eax
    movl %eax, %ecx
1:  pause
    inl %dx, %eax
    subl %ecx, %eax
    andl $0xffffff, %eax
    cmpl %edi, %eax
    jb 1b
    ret

# EBX: the table with signature EAX in the RSDT at R8, or 0.
.Ltable:
    movl 4(%r8), %ecx
    addl %r8d, %ecx
    leal 36(%r8), %edx
1:  cmpl %ecx, %edx
    jae 2f
    movl (%rdx), %ebx
    cmpl %eax, (%rbx)
    je 3f
    addl $4, %edx
    jmp 1b
2:  xorl %ebx, %ebx
3:  ret

# RBX: ECX bytes of fw_cfg's item EAX.
.Lfw_cfg:
    movl $0x510, %edx
    outw %ax, %dx
    movl $0x511, %edx
    xorl %ebx, %ebx
    xorl %edi, %edi
1:  xorl %eax, %eax
    inb %dx, %al
    xchgl %edi, %ecx
    shlq %cl, %rax
    xchgl %edi, %ecx
    orq %rax, %rbx
    addl $8, %edi
    loop 1b
    ret

# AL: whether check RSI holds.
.Lreport:
    pushq %rax
    call .Lputs
    popq %rax
    testb %al, %al
    jz 1f
    say ": ok\n"
    ret
1:  incl %r15d
    say ": FAILED\n"
    ret

.Lline:
    call .Lputs
.Lnewline:
    movb $10, %al
.Lputc:
    pushq %rax
    movl $0x3fd, %edx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    popq %rax
    movl $0x3f8, %edx
    outb %al, %dx
    ret

.Lputs:
    lodsb
    testb %al, %al
    jz 1f
    call .Lputc
    jmp .Lputs
1:  ret

# RAX in decimal.
.Ldecimal:
    movl $10, %ecx
    xorl %edi, %edi
1:  xorl %edx, %edx
    divq %rcx
    addl $'0', %edx
    pushq %rdx
    incl %edi
    testq %rax, %rax
    jnz 1b
2:  popq %rax
    call .Lputc
    decl %edi
    jnz 2b
    ret

.balign 8
.Lgdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
    .quad 0x00cf93000000ffff    # data
    .quad 0x00cf9b000000ffff    # 32-bit code
.Lgdt_end:
.Lgdtr:
    .word .Lgdt_end - .Lgdt - 1
    .long .Lgdt - multiboot_image_start + LOAD
    .long 0
.Lidtr:
    .word 0xfff
    .quad IDT
.Lno_idt:
    .word 0
    .quad 0
.globl multiboot_image_end
multiboot_image_end:
.previous
