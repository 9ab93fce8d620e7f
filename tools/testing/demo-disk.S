/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The first sector of the disk of `make demo`: reads the second one, and prints the line in it.
 *
 * The firmware, which reads the disk by DMA, loads this at 0x7c00 and leaves the number of the disk
 * in DL. The firmware's console is the serial port.
 */
	.code16
	.globl	_start
_start:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$_start, %sp
	movw	$packet, %si
	movb	$0x42, %ah		/* extended read */
	int	$0x13
	jc	2f
	movw	$line, %si
1:	lodsb
	testb	%al, %al
	jz	2f
	movb	$0x0e, %ah		/* teletype output */
	xorw	%bx, %bx
	int	$0x10
	jmp	1b
2:	int	$0x18			/* boot from the next device */

packet:	.byte	16, 0
	.word	1			/* sector */
	.word	line, 0			/* to offset, segment */
	.quad	1			/* from sector */

	.org	510
	.word	0xaa55
line:
