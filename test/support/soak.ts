/** Whether this is `npm run soak`, which runs tests of large bodies and of many repetitions at their full size. */
export const IS_SOAK = process.env.TERCET_TEST_SOAK === "1";
