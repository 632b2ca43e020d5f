/** Follows a paged list to its end, or to `limit` entries. */
export async function allPages<P extends { nextPageToken: string }, T>(
  fetch: (pageToken: string) => Promise<P>,
  entries: (page: P) => T[],
  limit = Infinity,
): Promise<T[]> {
  const found: T[] = [];
  let pageToken = '';
  do {
    const page = await fetch(pageToken);
    found.push(...entries(page));
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && found.length < limit);
  return found.slice(0, limit);
}

/** What services give in one page at most. */
const MAX_PAGE_SIZE = 1000;

/** The size of the pages in which `limit` entries are fetched. */
export const pageSizeFor = (limit: number): number => Math.min(Math.max(limit, 1), MAX_PAGE_SIZE);
