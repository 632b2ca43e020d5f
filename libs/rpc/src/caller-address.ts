import { isIP } from 'node:net';
import type { HandlerContext } from '@connectrpc/connect';

/**
 * The caller's network address as the edge reports it (the first of `x-forwarded-for`), or empty. Kept for people to
 * read; nothing is decided by it, since whoever reaches a service directly can write what they like.
 */
export function addressOf(ctx: Pick<HandlerContext, 'requestHeader'>): string {
  const first = ctx.requestHeader.get('x-forwarded-for')?.split(',')[0]?.trim() ?? '';
  return isIP(first) === 0 ? '' : first;
}
