/** Whether this is `npm run soak`, which runs the tests of large bodies at their full size. */
export const IS_SOAK = process.env.TERCET_TEST_SOAK === "1";
