/**
 * The list of conversations by when they were last written in.
 *
 * Knows nothing about how groups are shown. Invariant: every conversation is in exactly one group, the
 * newest first; groups without any are left out.
 */

/** @typedef {"pinned" | "today" | "yesterday" | "week" | "older"} GroupName */

const NUM_WEEK_DAYS = 7;

/**
 * @template {{ isPinned: boolean, updatedAt: number }} S
 * @param {readonly S[]} summaries
 * @param {Date} now days are those of the reader's clock
 * @returns {{ name: GroupName, summaries: S[] }[]}
 */
export function groupByDay(summaries, now) {
  const daysAgo = (numDays) => new Date(now.getFullYear(), now.getMonth(), now.getDate() - numDays).getTime();
  const starts = { today: daysAgo(0), yesterday: daysAgo(1), week: daysAgo(NUM_WEEK_DAYS) };
  const groupOf = ({ isPinned, updatedAt }) => {
    if (isPinned) return "pinned";
    if (updatedAt >= starts.today) return "today";
    if (updatedAt >= starts.yesterday) return "yesterday";
    return updatedAt >= starts.week ? "week" : "older";
  };
  const newestFirst = [...summaries].sort((first, second) => second.updatedAt - first.updatedAt);
  return /** @type {GroupName[]} */ (["pinned", "today", "yesterday", "week", "older"])
    .map((name) => ({ name, summaries: newestFirst.filter((summary) => groupOf(summary) === name) }))
    .filter((group) => group.summaries.length > 0);
}
