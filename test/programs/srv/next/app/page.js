import { headers } from "next/headers";

export default async function Page() {
  return <p>{"peer=" + (await headers()).get("x-forwarded-for")}</p>;
}
