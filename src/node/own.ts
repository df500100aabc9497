/**
 * Express and its kin put prototypes of their own in the place of a request's and a response's, whose chains end in
 * those of `node:http`. So what makes them ours is not only on the prototype, but the instance's own as well.
 */
export function ownedBy(prototype: object): PropertyDescriptorMap {
  const { constructor: _, ...members } = Object.getOwnPropertyDescriptors(prototype);
  return members;
}
