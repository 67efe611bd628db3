// What `src/acts.rs` does, in JavaScript.
const PATCH =
  '{"events":{"https://schemas.identity.wso2.org/events/login/event-type/loginSuccess":{"user":{"ref":null},"reviewed":true}}}';
const BEFORE = '"name":"Till"';
const AFTER = '"name":"Desk"';

export const transform = {
  process({ subject, claims }) {
    switch (subject) {
      case "pass":
        return { tag: "pass" };
      case "drop":
        return { tag: "drop", val: "nobody asked for it" };
      case "patch":
        return { tag: "patch", val: PATCH };
      case "replace":
        return { tag: "replace", val: claims.replace(BEFORE, AFTER) };
      case "transform": {
        const set = JSON.parse(claims);
        Object.values(set.events)[0].application.name = "Desk";
        return { tag: "replace", val: JSON.stringify(set) };
      }
      default:
        throw { tag: "permanent", val: `there is no act \`${subject}\`` };
    }
  },
};
